"""Enforcement besides admission: approvals, quotas, kernel state, settlement of open intents."""
