"""Figures: pure functions of records, the same bytes from the same records."""
