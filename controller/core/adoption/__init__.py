"""Adoption of containers as found: comparison with a document, admitted gaps, shown labels."""
