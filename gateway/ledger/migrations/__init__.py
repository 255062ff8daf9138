"""How a ledger's database comes from each revision to the next, by Alembic."""
