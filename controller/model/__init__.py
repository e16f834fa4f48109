"""The values that all packages share, frozen. This package imports no other package of trimtab."""
