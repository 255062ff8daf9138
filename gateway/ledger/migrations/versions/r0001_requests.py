"""A row for every finished request."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("writer", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("caller", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("error_code", sa.Text),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("requested", sa.Text),
        sa.Column("expert", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("domain", sa.Text),
        sa.Column("confidence", sa.Float(53)),
        sa.Column("reason", sa.Text),
        sa.Column("stage", sa.Text),
        sa.Column("attempts", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("ttft", sa.Float(53)),
        sa.Column("route_ms", sa.Float(53)),
        sa.Column("waited", sa.Float(53), nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("cached_input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("cost_usd", sa.Float(53)),
        sa.Column("estimated_usd", sa.Float(53)),
        sa.Column("baseline_usd", sa.Float(53)),
        sa.Column("dearest_usd", sa.Float(53)),
        sa.Column("energy_wh", sa.Float(53)),
        sa.Column("prompt", sa.Text),
    )
    op.create_index("requests_at", "requests", ["at"])
    op.create_index("requests_id", "requests", ["id", "caller", "at"])
