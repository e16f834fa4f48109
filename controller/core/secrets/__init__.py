"""Secrets without I/O: SOPS documents, age files, contents and their ids."""
