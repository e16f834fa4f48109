"""`status` and `describe`: the status report as tables and screens."""
