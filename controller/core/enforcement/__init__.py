"""What the broker enforces besides admission: kernel state, budgets, settlement of open intents."""
