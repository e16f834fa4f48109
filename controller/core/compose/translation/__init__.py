"""Compose projects to documents of trimtab's kinds, with the place of every value."""
