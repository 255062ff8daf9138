"""Totals of a day, which outlive its rows."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "daily",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("expert", sa.Text, primary_key=True),
        sa.Column("caller", sa.Text, primary_key=True),
        sa.Column("domain", sa.Text, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_input_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("priced", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Float(53), nullable=False),
        sa.Column("estimated_usd", sa.Float(53), nullable=False),
        sa.Column("baseline_usd", sa.Float(53), nullable=False),
        sa.Column("compared", sa.BigInteger, nullable=False),
        sa.Column("compared_usd", sa.Float(53), nullable=False),
        sa.Column("dearest_usd", sa.Float(53), nullable=False),
        sa.Column("dearest_compared_usd", sa.Float(53), nullable=False),
        sa.Column("energy_wh", sa.Float(53), nullable=False),
    )
