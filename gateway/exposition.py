"""Exposition: what /metrics tells of all that was counted, and in which format.

Nothing is deleted: of several processes each has its counters in a file that only grows. What a label may say now is on a roll, and
a series that says something else is left out until it is on it again. Then it goes on where it was, which no rate takes amiss.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from gateway import metricfiles

NONE = "none"  # the label where no expert was chosen, or nothing was classified
ROLL = "moe_roll"  # a family that only processes which count together see
# Labels whose values come from experts.yaml, and of what they are the names.
NAMES = {"expert": "expert", "from_expert": "expert", "to_expert": "expert", "replica": "replica", "domain": "domain"}
OPENMETRICS = "application/openmetrics-text"
PLAIN_TYPE, OPENMETRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8", openmetrics.CONTENT_TYPE_LATEST


class Roll:
    """The experts, replicas and domains that there are: those of everybody who spoke of them and has not left."""

    def __init__(self) -> None:
        self._gauge = Gauge(ROLL, "What labels may say.", ("of", "name"), registry=None, multiprocess_mode="livemax")
        self._owners: dict[object, set[tuple[str, str]]] = {}

    def enter(self, owner: object, names: Mapping[str, Iterable[str]]) -> None:
        """From now on there are these, by what they are the names of."""
        self._owners[owner] = {(of, name) for of, several in names.items() for name in (*several, NONE)}
        for entry in self._owners[owner]:
            self._gauge.labels(*entry).set(1)

    def leave(self, owner: object) -> None:
        """What nobody else speaks of is gone."""
        left = self._owners.pop(owner, set())
        for entry in left.difference(*self._owners.values()):
            self._gauge.labels(*entry).set(metricfiles.GONE)

    def collect(self) -> Iterable[Metric]:
        return self._gauge.collect()


class Exposition(Collector):
    """Of what `registry` has, or of several processes the files of all, the series that say what is on the roll."""

    def __init__(self, registry: CollectorRegistry, roll: Roll) -> None:
        self._registry, self._roll = registry, roll

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """What there is to tell, and its content type. OpenMetrics, which alone has exemplars, where `accept` names it."""
        if any(part.partition(";")[0].strip().lower() == OPENMETRICS for part in accept.split(",")):
            return openmetrics.generate_latest(self), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
        return generate_latest(self), PLAIN_TYPE

    def collect(self) -> Iterator[Metric]:
        if metricfiles.shared():
            families = {family.name: family for family in metricfiles.collect()}
            roll: Iterable[Metric] = [family] if (family := families.pop(ROLL, None)) else []
        else:
            families = {family.name: family for family in self._registry.collect()}
            roll = self._roll.collect()
        known = _names(roll)
        for family in families.values():
            family.samples = [
                sample
                for sample in family.samples
                if not sample.name.endswith("_created") and _is_known(sample.labels, known)
            ]
            yield family


def _names(roll: Iterable[Metric]) -> Mapping[str, set[str]]:
    """By what they are the names of. Where nobody spoke of any yet, there is no entry."""
    names = defaultdict(set)
    for family in roll:
        for sample in family.samples:
            if sample.value != metricfiles.GONE:
                names[sample.labels["of"]].add(sample.labels["name"])
    return names


def _is_known(labels: Mapping[str, str], known: Mapping[str, set[str]]) -> bool:
    return all(label not in NAMES or value in known.get(NAMES[label], (value,)) for label, value in labels.items())
