"""The machine: devices, memory, and what identifies it."""
