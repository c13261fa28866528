"""Folder layouts of data sets, one a file."""
