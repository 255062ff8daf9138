"""Charge: what one request cost, and what the same tokens would have cost elsewhere. Tariff: the prices that it is made from.

What each figure means, with an example: docs/cost.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gateway.pricemap import ListPrice, public_price
from gateway.usage import Usage
from router.decision import Decision
from router.experts import Expert, ExpertsFile
from router.prices import PER_MILLION, Baseline

HOUR_SECONDS = 3600.0
KILO = 1000.0
NOBODY: Mapping[str, Expert] = MappingProxyType({})


class Occupied(NamedTuple):
    """An expert's server gave a request so many seconds: where it had several, each had its share."""

    name: str
    expert: Expert
    seconds: float


class Charge(NamedTuple):
    """USD; None where it is not known.

    `cost` is by token prices; `estimated` the request's share of the GPU hours of experts that are paid by them. `baseline` and
    `dearest` are what its tokens would have cost at the baseline and at the dearest expert able to answer it. `classifier` and
    `lost_cache` are what routing it cost. Energy in watt-hours, emissions in grams, None where no expert asked declares watts.
    """

    cost: float | None = None
    estimated: float | None = None
    baseline: float | None = None
    dearest: float | None = None
    classifier: float = 0.0
    lost_cache: float = 0.0
    energy_wh: float | None = None
    gco2e: float | None = None

    @property
    def spent(self) -> float | None:
        """`cost` and `estimated` together."""
        known = [usd for usd in (self.cost, self.estimated) if usd is not None]
        return sum(known) if known else None


class CostWarning(NamedTuple):
    """`code` names its kind, `path` the keys of experts.yaml that lead to what it is about."""

    code: str
    path: tuple[str, ...]
    words: str


NO_CHARGE = Charge()


class Tariff:
    """The prices of one generation. `baseline` is the name and the price that savings are counted against."""

    def __init__(self, experts: Mapping[str, Expert] = NOBODY, cpu_hour: float = 0.0) -> None:
        self._cpu_second = cpu_hour / HOUR_SECONDS
        self.baseline: tuple[str, ListPrice] | None = None
        prices = ((name, expert.token_price) for name, expert in experts.items() if not expert.stand_in)
        self._rivals = [(name, p.input, p.cached, p.output, p.reasoned) for name, p in prices if p is not None]

    def charge(
        self,
        answered: tuple[str, Expert] | None,
        usage: Usage | None,
        decision: Decision | None,
        occupied: Sequence[Occupied] = (),
    ) -> Charge:
        """What a request cost that this expert answered, and which took so much time of servers."""
        cost = baseline = dearest = None
        lost_cache = 0.0
        if answered is not None and usage is not None:
            expert = answered[1]
            price = expert.token_price
            cost = None if price is None else usage.cost(price)
            # A stand-in saves nothing, and what costs nobody knows how much is not compared.
            if expert.price is not None and usage.total and not expert.stand_in:
                baseline = None if self.baseline is None else self.baseline[1].cost(usage)
                dearest = self._dearest(usage, decision, cost)
            if decision is not None and decision.switched is not None:
                lost_cache = _lost_cache(answered, usage, decision)
        classifier = 0.0 if decision is None else decision.seconds * self._cpu_second
        return Charge(cost, _estimated(occupied), baseline, dearest, classifier, lost_cache, *_energy(occupied))

    def _dearest(self, usage: Usage, decision: Decision | None, cost: float | None) -> float | None:
        """The largest bill for these tokens among the experts that could have answered, by token prices."""
        refused = [c.expert for c in decision.candidates if c.refused] if decision else ()
        reasoning, said = usage.reasoning, usage.output - usage.reasoning
        bills = [
            (usage.input * fresh + usage.cached_input * cached + said * output + reasoning * reasoned) / PER_MILLION
            for name, fresh, cached, output, reasoned in self._rivals
            if name not in refused
        ]
        return max(bills if cost is None else (*bills, cost), default=None)


def _estimated(occupied: Sequence[Occupied]) -> float | None:
    hourly = [o.expert.replica_hour * o.seconds / HOUR_SECONDS for o in occupied if o.expert.gpu_price]
    return sum(hourly) if hourly else None


def _energy(occupied: Sequence[Occupied]) -> tuple[float | None, float | None]:
    """Watt-hours and grams of CO2e, of those that declare what they draw, and how it is made."""
    hours = [
        (e.watts * o.seconds / HOUR_SECONDS, e.gco2e_per_kwh) for o in occupied if (e := o.expert.energy) is not None
    ]
    grams = [wh / KILO * per_kwh for wh, per_kwh in hours if per_kwh is not None]
    return sum(wh for wh, _ in hours) if hours else None, sum(grams) if grams else None


NO_TARIFF = Tariff()


def _lost_cache(answered: tuple[str, Expert], usage: Usage, decision: Decision) -> float:
    """What an expert that takes a conversation over is paid more, in USD, for reading the turns before, which it has not in its
    cache. How long those are is estimated; how much of them it did have there is told."""
    name, expert = answered
    price = expert.token_price
    if price is None or name == decision.previous:
        return 0.0
    unread = min(usage.input, max(0, decision.prefix - usage.cached_input))
    return unread * max(0.0, price.input - price.cached) / PER_MILLION


def baseline_of(file: ExpertsFile) -> tuple[str, ListPrice] | None:
    """The baseline's name and price, None where the file names none or nobody knows its price. Reads a large file."""
    baseline = file.baseline
    if isinstance(baseline, Baseline):
        return baseline.name, ListPrice(baseline)
    price = public_price(baseline) if baseline is not None else None
    return None if baseline is None or price is None else (baseline, price)


def cost_warnings(file: ExpertsFile) -> Iterator[CostWarning]:
    """What keeps costs or savings from being counted."""
    for name, expert in file.experts.items():
        launcher = expert.upstream.worker
        if expert.price is None:
            words = f"the expert {name} has no price: what it answers costs nothing in the figures"
            yield CostWarning("unpriced", ("experts", name), words)
        elif expert.gpu_price and launcher is not None and file.experts[launcher].gpu_price:
            words = f"the GPU hours of {name} are those of {launcher}, whose workers it is on: they are counted once, for the first"
            yield CostWarning("price-without-effect", ("experts", name, "price"), words)
    if isinstance(file.baseline, str) and public_price(file.baseline) is None:
        words = (
            f"the price of the baseline {file.baseline!r} is not known: no savings are counted; name another, or give its figures: "
            "baseline: {name: ours, input: 2.5, output: 10}"
        )
        yield CostWarning("baseline-unknown", ("baseline",), words)
