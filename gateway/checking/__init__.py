"""Checking: what `moe-gateway check` has to say of an experts.yaml, and how it says it."""
