"""What an added expert would do to routing: which prompts would go to it, by the router's own set and its examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gateway.console import out, shown_progress

if TYPE_CHECKING:
    from router.experts import ExpertsFile
    from router.rerouting import Rerouting


@dataclass(frozen=True)
class Effect:
    """`own` are the prompts of the router's own set, in which `labels` say what each is about; `examples` those of new domains."""

    expert: str
    own: Rerouting
    labels: Sequence[str]
    examples: Rerouting

    @property
    def taken(self) -> Counter[str]:
        """The prompts of the own set that go to the expert, by what they are about."""
        routes = zip(self.own.routes, self.labels, strict=True)
        return Counter(label for route, label in routes if route.new.expert == self.expert)

    @property
    def taken_examples(self) -> int:
        return sum(route.new.expert == self.expert for route in self.examples.routes)

    def described(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "prompts": len(self.own.routes),
            "to_it": dict(self.taken),
            "from": {flow.old: len(flow.routes) for flow in self.own.flows() if flow.new == self.expert},
            "examples": len(self.examples.routes),
            "examples_to_it": self.taken_examples,
            "quality": self.own.quality.described(4),
            "cost_usd_per_prompt": self.own.cost.described(9),
        }


def effect_of(expert: str, before: ExpertsFile, after: ExpertsFile, examples: Sequence[str], state: Path) -> Effect:
    """Trains a router for `after` where it has new domains, which takes some seconds, and keeps it nowhere.

    Raises RouterError.
    """
    from router.dataset import OWN_SET, read_rows
    from router.rerouting import Prompt, compare
    from router.training.trial import trial_router

    rows = [row for row in read_rows(OWN_SET) if row.part == "plain"][::2]
    with shown_progress() as progress, TemporaryDirectory(prefix="moe-gateway-") as scratch:
        old = trial_router(before, state, Path(scratch) / "old", progress)
        new = trial_router(after, state, Path(scratch) / "new", progress)
        own = compare(old, new, [Prompt.of(row.text) for row in rows], progress)
        known = compare(old, new, [Prompt.of(text) for text in examples])
    return Effect(expert, own, [row.domain for row in rows], known)


def show(effect: Effect) -> None:
    from rich.text import Text

    own, taken = effect.own, effect.taken
    out.print(Text("Predicted effect", "bold"))
    if count := len(effect.examples.routes):
        learned = f"  Of the {count} example prompts that it learned from, {effect.taken_examples} go to it"
        out.print(learned, highlight=False)
    about = ", ".join(f"{label} {count}" for label, count in taken.most_common())
    out.print(
        f"  {sum(taken.values())} of the router's own {len(own.routes)} prompts go to it{f': {about}' if about else ''}",
        highlight=False,
        soft_wrap=True,
    )
    for flow in own.flows():
        if flow.new == effect.expert:
            out.print(f"    {len(flow.routes)} that {flow.old} answers now", highlight=False, markup=False)
    for name, change, digits in (("expected quality", own.quality, 3), ("USD a prompt", own.cost, 6)):
        if change.before is not None and change.after is not None:
            out.print(f"  {name} {change.before:.{digits}f} → {change.after:.{digits}f}", highlight=False)
    if not taken and not effect.taken_examples:
        out.print(
            "  others are expected to be at least as good at all of them: see moe-gateway experts list", style="yellow"
        )
