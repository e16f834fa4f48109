"""Facts: frozen values. This package imports nothing of ours."""
