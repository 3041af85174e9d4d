"""Numbered migrations of a log (Alembic). What is released is never changed: what is new is a new file."""
