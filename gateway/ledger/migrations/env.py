"""What Alembic runs a migration with: the connection that it was given, whose transaction is the caller's."""

from __future__ import annotations

from alembic import context

from gateway.ledger.database import REVISIONS
from gateway.ledger.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, version_table=REVISIONS.name)
context.run_migrations()
