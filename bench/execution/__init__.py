"""Where cells run, behind one small protocol."""
