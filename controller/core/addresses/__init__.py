"""Addresses of slots: the subnets of networks, and the address that a slot keeps in a network."""
