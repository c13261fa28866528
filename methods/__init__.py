"""Anomaly detectors behind one contract, :class:`methods.detector.Detector`."""
