"""How Alembic runs the migrations of a log: on the connection that `Database` gives it, within its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="rlfocal_version")
context.run_migrations()
