"""Fitted detectors as files that other programs run: what is in them, how they are written, run and compared."""
