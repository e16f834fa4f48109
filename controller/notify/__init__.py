"""Notifications: the loop of the process that sends them, its state file, and the senders."""
