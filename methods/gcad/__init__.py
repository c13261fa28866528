"""GCAD: a local branch of patch descriptors, and a global one that sees the whole image."""
