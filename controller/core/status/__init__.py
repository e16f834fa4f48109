"""The status report: facts, conditions, details and output of each resource."""
