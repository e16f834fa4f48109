"""Adoption at the gate: objects with the instance's label, and containers as found."""
