"""Journal records: their form, the inventory folded from them, and queries."""
