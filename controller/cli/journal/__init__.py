"""`journal` and `ship`: read, verify, export and ship the journal."""
