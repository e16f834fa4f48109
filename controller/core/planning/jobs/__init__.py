"""The plan of a job: its next run, and the containers of runs that are not kept."""
