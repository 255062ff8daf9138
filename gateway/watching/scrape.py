"""One look at a gateway's /metrics."""

from __future__ import annotations

import http.client
import math
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Series = dict[str, dict[Labels, float]]  # by name
PROTECTED = "its /metrics asks for a key (serve --protect-metrics): set MOE_GATEWAY_KEY to one of the gateway's"
MAX_BYTES = 32 * 1024 * 1024  # of an exposition; the series of a thousand experts are a tenth of it


class ScrapeError(Exception):
    """There are no metrics to be had. The message says why, in words for people."""


@dataclass(frozen=True)
class Scrape:
    """`at` is in seconds of time.monotonic. `gauges` are values of now, `counters` what only grows: sums and buckets too."""

    at: float
    counters: Series = field(default_factory=dict)
    gauges: Series = field(default_factory=dict)

    def gauge(self, name: str, **labels: str) -> float:
        """The sum of the gauges of that name with these labels."""
        return total(self.gauges, name, **labels)

    def total(self, name: str, **labels: str) -> float:
        """The same of what only grows."""
        return total(self.counters, name, **labels)

    def values(self, name: str, label: str) -> list[str]:
        """Which values `label` has among the series of that name, in their order."""
        series = self.gauges.get(name) or self.counters.get(name, {})
        return list(dict.fromkeys(dict(of)[label] for of in series if label in dict(of)))

    def labels(self, name: str) -> Mapping[str, str]:
        """Those of the gauge of that name that is not 0, such as moe_build_info."""
        return next((dict(of) for of, value in self.gauges.get(name, {}).items() if value), {})


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of those of that name with these labels."""
    wanted = frozenset(labels.items())
    return sum(value for of, value in series.get(name, {}).items() if wanted <= of)


def parse(text: str, at: float) -> Scrape:
    """Raises ScrapeError where it is not Prometheus' text format, or no gateway's."""
    scrape = Scrape(at)
    try:
        for family in text_string_to_metric_families(text):
            into = scrape.gauges if family.type == "gauge" else scrape.counters
            for sample in family.samples:
                if not sample.name.endswith("_created") and math.isfinite(sample.value):
                    labels = frozenset((name, _shown(value)) for name, value in sample.labels.items())
                    into.setdefault(sample.name, {})[labels] = sample.value
    except ValueError:
        raise ScrapeError("what answers there does not speak Prometheus' text format") from None
    if not scrape.labels("moe_build_info"):
        raise ScrapeError("what answers there is no moe-gateway")
    return scrape


def fetch(url: str, key: str | None, seconds: float) -> Scrape:
    """What the gateway at `url`, of http or https, says now. Raises ScrapeError; its message names no address and no key."""
    asked = urllib.request.Request(f"{url.rstrip('/').removesuffix('/v1')}/metrics")  # noqa: S310 - as the caller has it
    if key:  # which goes nowhere that an answer may send us to
        asked.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(asked, timeout=seconds) as answer:  # noqa: S310 - as the caller has it
            body = answer.read(MAX_BYTES)
    except urllib.error.HTTPError as error:
        error.close()
        said = PROTECTED if error.code in (401, 403) else f"its /metrics answers {error.code}"
        raise ScrapeError(said) from None
    except urllib.error.URLError as error:
        raise ScrapeError(f"it does not answer: {_reason(error.reason)}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ScrapeError(f"it does not answer: {_reason(error)}") from None
    return parse(body.decode("utf-8", "replace"), time.monotonic())


def _shown(value: str) -> str:
    """Without what a terminal would take for an order."""
    return value if value.isprintable() else "".join(c if c.isprintable() else "�" for c in value)


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
