"""Signed admission at the gate: the controller's changes in namespaces that require signed sources."""
