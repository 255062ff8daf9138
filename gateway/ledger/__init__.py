"""The usage ledger: a row for every finished request in a database, written beside the requests and never in their way."""
