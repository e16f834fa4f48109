"""Compose projects: the text of Compose files to one tree with long forms, without I/O."""
