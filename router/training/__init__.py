"""Makes routers: encoders are taught and distilled, heads are fitted, and the router that fits an experts.yaml is found or made."""
