"""The answers of a comparison in figures: by target, and of graded prompts by domain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any

import msgspec

from gateway.comparing.answers import Answer, Sampling
from gateway.comparing.prompts import Prompt
from router.measuring.measures import interval

Answers = Mapping[tuple[str, str], Answer]  # by prompt and target
MOST_ERRORS = 3
UNNAMED = ""  # the domain of prompts that name none


def document(
    prompts: Sequence[Prompt], targets: Mapping[str, str | None], answers: Answers, sampling: Sampling, when: str
) -> dict[str, Any]:
    """Everything that was asked and answered, as JSON. `targets` maps what was asked for to the one expert that it means,
    None where the router chooses."""
    return {
        "when": when,
        "sampling": msgspec.structs.asdict(sampling),
        "targets": {name: _figures(name, only, prompts, answers) for name, only in targets.items()},
        "prompts": [
            {
                "id": prompt.id,
                "domain": prompt.domain,
                "text": prompt.text,
                "graded": prompt.graded,
                "answers": {
                    target: msgspec.to_builtins(answers[prompt.id, target])
                    for target in targets
                    if (prompt.id, target) in answers
                },
            }
            for prompt in prompts
        ],
    }


def _figures(target: str, only: str | None, prompts: Sequence[Prompt], answers: Answers) -> dict[str, Any]:
    given = [answers[p.id, target] for p in prompts if (p.id, target) in answers]
    well = [answer for answer in given if not answer.error]
    own = [answer for answer in well if only is None or answer.expert == only]
    costs = [answer.cost_usd for answer in own if answer.cost_usd is not None]
    return {
        "answered": len(well),
        "failed": len(given) - len(well),
        "errors": dict(Counter(a.error for a in given if a.error).most_common(MOST_ERRORS)),
        "stood_in": len(well) - len(own),  # another expert answered in its place: no word of it counts here
        "first_token": _spread([a.first_token for a in own if a.first_token is not None]),
        "tokens_per_second": _spread([a.tokens_per_second for a in own if a.tokens_per_second is not None]),
        "seconds": _spread([a.seconds for a in own]),
        "output_tokens": sum(a.output_tokens or 0 for a in own),
        "cost_usd": sum(costs) if costs else None,
        "priced": len(costs),
        "experts": dict(Counter(a.expert for a in well).most_common()),
        "quality": _quality(own, prompts),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    p95 = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return {"p50": median(values), "p95": p95}


def _quality(answers: Sequence[Answer], prompts: Sequence[Prompt]) -> dict[str, dict[str, float]]:
    """The share of right answers by domain, and of `all`: {rows, right, mean, low, high}; the bounds hold with 95 %."""
    domain_of = {prompt.id: prompt.domain for prompt in prompts}
    grades: dict[str, list[float]] = {}
    for answer in answers:
        if answer.grade is not None:
            grades.setdefault("all", []).append(answer.grade)
            if domain_of[answer.prompt] != UNNAMED:
                grades.setdefault(domain_of[answer.prompt], []).append(answer.grade)
    return {domain: _share(of_domain) for domain, of_domain in grades.items()}


def _share(grades: Sequence[float]) -> dict[str, float]:
    right = round(sum(grades))
    low, high = interval(right, len(grades))
    return {"rows": len(grades), "right": right, "mean": right / len(grades), "low": low, "high": high}
