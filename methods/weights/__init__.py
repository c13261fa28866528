"""Pretrained weights: what exists, where it comes from, and how it is read."""
