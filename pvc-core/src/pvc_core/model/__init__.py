"""Frozen values and pure functions.  Nothing here reads a clock, does I/O or logs."""
