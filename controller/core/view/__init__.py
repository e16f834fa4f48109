"""The view of a host: one value for the page, metrics, notifications and commands."""
