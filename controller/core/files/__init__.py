"""Configs: their contents, the deliveries of services, where the broker keeps them, and for how long."""
