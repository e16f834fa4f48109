"""The controller's state of services, in memory and in files."""
