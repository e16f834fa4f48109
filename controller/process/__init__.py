"""Processes: starting children that end with their parent, and dropping every privilege."""
