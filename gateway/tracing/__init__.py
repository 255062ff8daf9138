"""OpenTelemetry: the spans of each request and the GenAI metrics, sent by OTLP. Only where an OTLP endpoint is set in the
environment, by OpenTelemetry's own variables; elsewhere nothing of it is imported."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from router.errors import MissingExtraError

if TYPE_CHECKING:
    from gateway.tracing.telemetry import Telemetry

log = logging.getLogger("moe_gateway")

SIGNALS = ("TRACES", "METRICS")
PROTOCOL = "http/protobuf"


def from_environment(environment: Mapping[str, str] = os.environ) -> Telemetry | None:
    """What exports the signals that have an endpoint; None where none has. Raises MissingExtraError where the `otel` extra is
    missing."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    signals = [signal for signal in SIGNALS if _exported(signal, environment)]
    if not signals:
        return None
    try:
        from gateway.tracing.telemetry import exporting
    except ImportError as error:
        raise MissingExtraError("opentelemetry-sdk", "otel") from error
    return exporting(traces="TRACES" in signals, metrics="METRICS" in signals)


def _exported(signal: str, environment: Mapping[str, str]) -> bool:
    def said(name: str) -> str:
        """The variable of the signal, else that of all."""
        own, common = f"OTEL_EXPORTER_OTLP_{signal}_{name}", f"OTEL_EXPORTER_OTLP_{name}"
        return environment.get(own, "").strip() or environment.get(common, "").strip()

    if not said("ENDPOINT") or environment.get(f"OTEL_{signal}_EXPORTER", "").strip() not in ("", "otlp"):
        return False
    if said("PROTOCOL") not in ("", PROTOCOL):
        log.warning("a signal is not exported: OTLP is spoken as http/protobuf alone", extra={"signal": signal.lower()})
        return False
    return True
