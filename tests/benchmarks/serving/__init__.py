"""How fast the gateway carries: one mock upstream, several ways to it, one run."""
