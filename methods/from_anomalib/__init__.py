"""Any image model of the installed anomalib as a detector."""
