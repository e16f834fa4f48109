"""Clients of the controller and the broker, shared by commands."""
