"""Admission of requests: create, update, exec, networks and volumes, adoption."""
