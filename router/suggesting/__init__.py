"""Proposes domains for traffic that no specialist answers."""
