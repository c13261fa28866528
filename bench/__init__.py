"""The runner: which cells to run, under which protocol, where, and how they are timed."""
