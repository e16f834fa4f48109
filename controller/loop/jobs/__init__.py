"""Jobs as passes see them: the time of decisions about runs, and the jobs of rollouts."""
