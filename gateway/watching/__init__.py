"""Watching a running gateway from outside: what its /metrics say, and what follows from two of them."""
