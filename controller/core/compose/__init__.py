"""Compose projects: the text of Compose files to the canonical project, without I/O."""
