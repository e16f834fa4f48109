"""`status` and `describe`: the report as tables and screens."""
