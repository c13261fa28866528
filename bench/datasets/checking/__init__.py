"""Whether what lies on the disk is what was published, and how to mend it."""
