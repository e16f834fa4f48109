"""Decisions: pure functions on model values. No I/O, no clock, no randomness, no logging."""
