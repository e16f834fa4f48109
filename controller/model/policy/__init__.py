"""The policy document: its sections, values and rule modes."""
