"""Composition: builds the processes from their parts, with clocks, ids and users."""
