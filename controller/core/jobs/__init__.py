"""Jobs: the memory of runs, when a run is due, and what the gate requires of a run."""
