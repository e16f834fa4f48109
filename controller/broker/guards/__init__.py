"""Checks that handlers share: ownership, names, budgets, kernel verification, recovery."""
