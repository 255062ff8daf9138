"""Prometheus' rules as objects of its Kubernetes operator; make rules writes them anew."""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

from tests.deploy.files import KUBERNETES, PROMETHEUS

HEAD = """\
# Written by make rules from deploy/prometheus/{name}.yml, which is the one to edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: moe-gateway-{name}
  labels:
    app.kubernetes.io/part-of: moe-gateway
spec:
"""


def objects() -> dict[Path, str]:
    """What should stand in each file of kubernetes/monitoring that has rules."""
    return {KUBERNETES / "monitoring" / f"{name}.yaml": _object(name) for name in ("rules", "alerts")}


def _object(name: str) -> str:
    rules = (PROMETHEUS / f"{name}.yml").read_text("utf-8")
    return HEAD.format(name=name) + indent(rules[rules.index("groups:") :], "  ")


if __name__ == "__main__":
    for path, text in objects().items():
        path.write_text(text, "utf-8")
        print(path)
