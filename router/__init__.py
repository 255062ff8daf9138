"""Decides which expert should answer a prompt. A library: synchronous, no HTTP, no globals."""
