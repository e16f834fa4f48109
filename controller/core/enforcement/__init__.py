"""Enforcement besides admission: kernel state, disruption budget, settlement of open intents."""
