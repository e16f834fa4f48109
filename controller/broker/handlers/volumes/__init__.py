"""Volumes at the gate: foreign volumes and networks are adopted, volumes are dumped and restored."""
