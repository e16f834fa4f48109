"""``plan``, ``diff``, ``apply``, ``approve``, ``snapshot``: what would change, and the change once."""
