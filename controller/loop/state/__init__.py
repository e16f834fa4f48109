"""The controller's state: what it remembers of services, in memory and in files."""
