"""JSON Schema of documents, for editors."""
