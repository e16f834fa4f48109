"""`source` and `fetch`: show and steer Git sources, and run their fetcher."""
