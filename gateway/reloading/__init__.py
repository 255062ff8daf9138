"""Another experts.yaml takes the place of the one that runs: seen, checked, tried, and served whole or not at all."""
