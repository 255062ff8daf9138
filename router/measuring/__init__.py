"""How good a router is: figures, baselines, time, and the report of them."""
