"""The privileged gate before the engine: parse strictly, admit, journal, forward a rebuilt request."""
