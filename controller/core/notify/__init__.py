"""Notifications without I/O: incidents from views, what each destination is told, and the texts."""
