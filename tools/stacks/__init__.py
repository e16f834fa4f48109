"""Ordinary Compose stacks, run by docker compose and by trimtab on one engine, and compared."""
