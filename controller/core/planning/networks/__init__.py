"""Networks in plans: unused ones are removed, and changed ones are remade."""
