"""What a request's decision was made from. Rows from before have NULL."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("requests", sa.Column("why", sa.Text))
