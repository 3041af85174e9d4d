"""One file for each version of the schema, by its number."""
