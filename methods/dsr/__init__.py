"""DSR: a dual subspace re-projection network."""
