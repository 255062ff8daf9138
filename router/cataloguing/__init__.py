"""Cataloguing: open models that people deploy, what is known of each, and what each needs."""
