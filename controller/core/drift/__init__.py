"""Drift of containers: differences, failures, repairs, backoff and probes."""
