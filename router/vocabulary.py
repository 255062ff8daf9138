"""Vocabulary: the names that mean something in every experts.yaml, and what packages may add to them."""

from __future__ import annotations

VIRTUAL_MODELS = ("auto", "auto:cheap", "auto:best")
POLICY_GROUP = "moe_gateway.policies"  # what packages add under it are virtual models too
ADDED_PREFIX = "auto:"
# What the router is made of: the group under which packages add such parts, and the names that need no package.
PARTS = {
    "encoder": ("moe_gateway.encoders", ("moe-minilm", "moe-static", "all-MiniLM-L6-v2")),
    "head": ("moe_gateway.heads", ("linear", "kernel")),
    "calibrator": ("moe_gateway.calibrators", ("temperature", "isotonic")),
}
BUILT_IN_DOMAINS = ("code", "math", "bio", "general")
LEAST_EXAMPLES = 5
RESERVED_IDS = ("none",)  # the label of metrics where no expert is meant
