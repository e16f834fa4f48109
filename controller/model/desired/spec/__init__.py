"""The ``spec`` of each kind: closed and frozen models, by subject."""
