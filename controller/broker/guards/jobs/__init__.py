"""Runs of jobs at the gate: facts for their admission, their only start, their recorded end."""
