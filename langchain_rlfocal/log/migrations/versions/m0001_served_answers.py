"""The schema of logs of the first release that had them: served answers, feedback, changes, snapshots."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "answers",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("seq", _NUMBER, primary_key=True),
        sa.Column("answer_id", sa.Text, sa.ForeignKey("answers.id"), unique=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
    )
    op.create_table(
        "changes",
        sa.Column("number", _NUMBER, primary_key=True),
        sa.Column("learner", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.UniqueConstraint("learner", "id"),
    )
    op.create_table(
        "snapshots",
        sa.Column("learner", sa.Text, primary_key=True),
        sa.Column("seq", _NUMBER, nullable=False),
        sa.Column("arrays", sa.LargeBinary, nullable=False),
    )
