"""The index of the journal's records, for queries."""
