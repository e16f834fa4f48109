"""The broker's server: connections, scheduling, record keeping and background tasks."""
