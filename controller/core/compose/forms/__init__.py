"""Forms of Compose attributes: the schema, long forms, typed values, paths and defaults."""
