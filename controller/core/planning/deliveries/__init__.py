"""Files in plans: contents before the containers that need them, and contents that change in place."""
