"""Metrics: the families, their values from facts, the text for Prometheus, and samples of use."""
