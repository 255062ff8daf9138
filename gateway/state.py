"""What one running gateway consists of."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.costs import Tariff
from gateway.deciding import Decider
from gateway.dispatch import Dispatcher
from gateway.exchange import Observer
from gateway.metrics import Metrics
from gateway.pool import Pool
from gateway.served import Served
from gateway.settings import Settings
from gateway.workers.lent import LentWorker
from gateway.workers.supervisor import Worker
from router.experts import ExpertsFile

if TYPE_CHECKING:
    from gateway.tracing.telemetry import Telemetry


@dataclass(frozen=True)
class GatewayState:
    settings: Settings
    file: ExpertsFile
    decider: Decider
    pool: Pool
    metrics: Metrics
    workers: Mapping[str, Worker | LentWorker]
    observers: tuple[Observer, ...]
    dispatcher: Dispatcher
    served: Served
    tariff: Tariff
    telemetry: Telemetry | None = None
    started: int = field(default_factory=lambda: int(time.time()))
