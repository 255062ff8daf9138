"""What the gateway's own code has: HTTP paths, flags and variables of `serve`, metrics and their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import typer.main

from gateway.cli import app
from gateway.metrics import Metrics
from gateway.routes import admin, models, ops, receipts, routing, usage
from gateway.routes.carried import KINDS
from tests.deploy.files import ROOT

ENDINGS = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_count", "_sum")}


@cache
def paths() -> set[str]:
    """Every path that it answers with a body."""
    found: list[Any] = [
        route for module in (models, routing, receipts, usage, ops, admin) for route in module.routes.routes
    ]
    return {route.path for route in found if route.methods - {"HEAD"}} | set(KINDS)


@cache
def _serve() -> Any:
    return typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]


def flags() -> set[str]:
    """Those of `moe-gateway serve`."""
    return {option for parameter in _serve().params for option in parameter.opts}


def variables() -> set[str]:
    """MOE_GATEWAY_…: those of its flags, and those that the settings read by themselves."""
    of_flags = {parameter.envvar for parameter in _serve().params if parameter.envvar}
    read = re.findall(r'"(MOE_GATEWAY_\w+)"', (ROOT / "gateway" / "settings.py").read_text("utf-8"))
    return of_flags | set(read)


@cache
def metrics() -> dict[str, set[str]]:
    """The series of /metrics, by the names that a query uses, and their labels."""
    found: dict[str, set[str]] = {}
    collectors: Iterable[Any] = Metrics().registry._collector_to_names
    for collector in collectors:
        endings = ENDINGS[type(collector).__name__]
        for ending in endings:
            found[collector._name + ending] = {*collector._labelnames, *(["le"] if ending == "_bucket" else [])}
    return found
