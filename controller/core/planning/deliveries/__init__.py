"""Files in plans: contents before their containers, and contents changed in place."""
