"""Runs a router over labelled prompts."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from router.artifact import Artifact
from router.cascade import Cascade
from router.dataset import Row
from router.decision import Decision, Query
from router.errors import NoExpertError, RouterError
from router.measuring.answers import Answers, answers_of, best_expert, scored
from router.measuring.asking import Asking, asking_of, text_query
from router.measuring.baselines import Baseline, baselines
from router.measuring.measures import FLIP_TAGS, Report, accepted, flips, pairs_of, score_probabilities, sliced
from router.measuring.replays import Replay, conversation_figures
from router.measuring.timing import latency
from router.perturb import PERTURBATIONS, perturbed
from router.routing import Router

CHUNK = 64
LEAST_ROWS = 10  # of a slice by tag: of fewer an accuracy says nothing
PERTURBED_ROWS = 300
TIMED_ROWS = 300
WORST_ERRORS = 40
EXCERPT = 160
LENGTHS = ((40, "up to 40"), (160, "41 to 160"), (640, "161 to 640"), (10**9, "over 640"))

Progress = Callable[[str, int, int], None]
Outcome = Decision | RouterError


def silent(step: str, done: int, total: int) -> None:
    """A Progress that shows nothing."""


def evaluate(artifact: Artifact, rows: Sequence[Row], progress: Callable[[int, int], None] | None = None) -> Report:
    """Score the artifact's stages alone on the rows' texts: no conversation, no policy. Part by part where rows name parts."""
    domains, cascade = artifact.manifest.domains, Cascade(artifact.manifest.domains, artifact.stages)
    chances: list[list[float]] = []
    for start in range(0, len(rows), CHUNK):
        found = cascade.score_many([row.text for row in rows[start : start + CHUNK]])
        chances += [[scores.by_domain[domain] for domain in domains] for scores in found]
        if progress:
            progress(len(chances), len(rows))
    return score_probabilities(rows, domains, np.array(chances).reshape(len(rows), len(domains)))


class Measurement:
    """A router measured on labelled rows. `document` is everything, as JSON has it; shares and qualities are 0 to 1."""

    def __init__(self, router: Router, rows: Sequence[Row], progress: Progress = silent) -> None:
        """`rows` are one or more."""
        self.router, self.rows, self.progress = router, list(rows), progress
        self.domains: tuple[str, ...] = tuple(router.artifact.manifest.domains)
        self.askings = [asking_of(row) for row in self.rows]
        self.decisions = decided(router, [asking.query for asking in self.askings], progress, "deciding")
        self.answers = answers_of(self.decisions, self.domains)
        self.right = accepted(self.rows, self.domains, self.answers.probabilities)

    def document(self, training: Sequence[Row] = (), quick: bool = False, copies: int | None = None) -> dict[str, Any]:
        """Every figure; `quick` leaves out what the rows do not say themselves: perturbed copies, latency, baselines.

        Those baselines that learn do so from `training`; `copies` is of how many rows perturbed copies are made.
        """
        if copies is None:
            copies = 0 if quick else PERTURBED_ROWS
        found = {
            "artifact": self.router.artifact.name,
            "rows": len(self.rows),
            "domains": list(self.domains),
            **scored(self.router.file, self.rows, self.domains, self.answers),
            "slices": self.slices(),
            "decisions": self.counts(),
            "robustness": self.robustness(copies),
            "conversation": self.conversations(),
            "errors": self.errors(),
        }
        if quick:
            return found
        return found | {"latency": self.latency(TIMED_ROWS), "baselines": self.baselines(training)}

    def slices(self) -> dict[str, dict[str, Any]]:
        """Accuracy by language, style, tag, length of the last turn, source, stage and reason."""
        rows, answered = self.rows, [d if isinstance(d, Decision) else None for d in self.decisions]
        names: dict[str, list[Iterable[str]]] = {
            "language": [[row.language] for row in rows],
            "style": [[row.style] for row in rows],
            "tag": [sorted(row.tags) for row in rows],
            "length": [[length_of(asking.query.text)] for asking in self.askings],
            "source": [[row.source] if row.source else [] for row in rows],
            "stage": [[d.stage if d else "none"] for d in answered],
            "reason": [[d.reason if d else "unanswered"] for d in answered],
        }
        confidence = self.answers.confidence
        found = {name: sliced(of_rows, self.right, confidence) for name, of_rows in names.items()}
        found["tag"] = {tag: figures for tag, figures in found["tag"].items() if figures["rows"] >= LEAST_ROWS}
        found["length"] = {bucket: found["length"][bucket] for _, bucket in LENGTHS if bucket in found["length"]}
        return {name: slices for name, slices in found.items() if slices}

    def counts(self) -> dict[str, Any]:
        """The share of decisions by each reason, stage and expert, and of those that nobody could answer."""
        answered = [d for d in self.decisions if isinstance(d, Decision)]
        return {
            "reasons": _shares(d.reason for d in answered),
            "stages": _shares(d.stage for d in answered),
            "experts": _shares(d.expert for d in answered),
            "unanswered": 1 - len(answered) / len(self.decisions),
        }

    def robustness(self, count: int) -> dict[str, Any]:
        """Flips of the file's own perturbed rows by tag, and of copies made here of `count` rows, by perturbation and
        `together`."""
        pairs, given = pairs_of(self.rows), self.answers.given
        by_tag = {tag: [pair for pair in pairs if tag in self.rows[pair[0]].tags] for tag in sorted(FLIP_TAGS)}
        own = {tag: {"rows": len(of_tag), "flips": flips(of_tag, given)} for tag, of_tag in by_tag.items() if of_tag}
        sample = chosen([i for i, row in enumerate(self.rows) if _single(row)], self.rows, count)
        made = {name: self._perturbed(name, sample) for name in PERTURBATIONS} if sample else {}
        if made:
            made["together"] = _together(made.values())
        return {"pairs": len(pairs), "flips": flips(pairs, given), "own": own, "made": made}

    def _perturbed(self, name: str, sample: Sequence[int]) -> dict[str, Any]:
        """The copies that differ from their rows at all: how many, how right they and their rows are, and how many flip."""
        copies = {i: perturbed(self.rows[i].text, name) for i in sample}
        changed = [i for i, copy in copies.items() if copy != self.rows[i].text and copy.strip()]
        queries = [text_query(copies[i]) for i in changed]
        answers = answers_of(decided(self.router, queries, self.progress, f"perturbing: {name}"), self.domains)
        if not changed:
            return {"rows": 0, "accuracy": None, "accuracy_before": None, "flips": None}
        right = accepted([self.rows[i] for i in changed], self.domains, answers.probabilities)
        return {
            "rows": len(changed),
            "accuracy": float(right.mean()),
            "accuracy_before": float(self.right[changed].mean()),
            "flips": float(np.mean(answers.given != self.answers.given[changed])),
        }

    def conversations(self) -> dict[str, Any]:
        """Every conversation of the file replayed turn by turn: see replays.py."""
        talks = self._talks()
        queries = [query for talk in talks for query in talk.moments]
        decisions = decided(self.router, queries, self.progress, "replaying conversations")
        experts = [d.expert if isinstance(d, Decision) else "nobody" for d in decisions]
        switches = Counter(str(d.switched) for d in decisions if isinstance(d, Decision) and d.switched)
        return conversation_figures(_replays(talks, experts), switches)

    def errors(self, count: int = WORST_ERRORS) -> list[dict[str, Any]]:
        """The most confident errors, the surest first."""
        confidence, given = self.answers.confidence, self.answers.given
        wrong = sorted(np.flatnonzero(~self.right).tolist(), key=lambda i: (-confidence[i], i))[:count]
        return [
            {
                "id": self.rows[i].id,
                "part": self.rows[i].part,
                "domain": self.rows[i].domain,
                "given": self.domains[given[i]],
                "confidence": float(confidence[i]),
                "language": self.rows[i].language,
                "text": excerpt(self.askings[i].query.text),
            }
            for i in wrong
        ]

    def latency(self, count: int) -> dict[str, Any]:
        """See timing.py."""
        return latency(self.fresh, [text_query(text) for text in self.timed_texts(count)], self.progress)

    def timed_texts(self, count: int = TIMED_ROWS) -> list[str]:
        """At most `count` prompts to time: of one turn where there are any that can be answered, and none twice, so that
        nothing is remembered."""
        answered = [i for i, decision in enumerate(self.decisions) if isinstance(decision, Decision)]
        single = [i for i in answered if _single(self.rows[i])] or answered
        distinct = list({self.rows[i].text: i for i in single}.values())
        return [self.askings[i].query.text for i in chosen(distinct, self.rows, count)]

    def fresh(self) -> Router:
        """The same router, that remembers no text."""
        return Router(self.router.file, self.router.artifact, self.router.classifier)

    def baselines(self, training: Sequence[Row]) -> dict[str, Any]:
        """The headline figures, part by part, of ways to choose that need no thought, or little; see baselines.py."""
        self.progress("baselines", 0, 1)
        found = baselines(training, self.rows, self.domains)
        figures = {name: self._baseline(baseline) for name, baseline in found.items()}
        self.progress("baselines", 1, 1)
        return figures

    def _baseline(self, baseline: Baseline) -> dict[str, Any]:
        answers = self._chosen_by(baseline, [row.text for row in self.rows])
        figures = scored(self.router.file, self.rows, self.domains, answers)
        talks = self._talks()
        experts = self._chosen_by(baseline, [query.text for talk in talks for query in talk.moments]).experts
        return {
            "all": _headline(figures["all"]),
            "parts": {part: _headline(of_part) for part, of_part in figures["parts"].items()},
            "bounce": conversation_figures(_replays(talks, experts))["bounce"],
        }

    def _chosen_by(self, baseline: Baseline, texts: Sequence[str]) -> Answers:
        """What a baseline gives, its expert the best one for its domain."""
        probabilities = baseline(texts)
        best = [best_expert(self.router.file, domain) for domain in self.domains]
        return Answers(probabilities, tuple(best[i] for i in probabilities.argmax(axis=1).tolist()))

    def _talks(self) -> list[Asking]:
        return [asking for asking in self.askings if len(asking.moments) > 1]


def _together(made: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of all copies, of whichever perturbation."""
    copied = [figures for figures in made if figures["rows"]]
    rows = sum(figures["rows"] for figures in copied)
    means = {
        name: sum(f["rows"] * f[name] for f in copied) / rows if rows else None
        for name in ("accuracy", "accuracy_before", "flips")
    }
    return {"rows": rows, **means}


def decided(router: Router, queries: Sequence[Query], progress: Progress, step: str) -> list[Outcome]:
    """The decisions, in order; in place of one that nobody could answer its NoExpertError. Raises other RouterErrors."""
    outcomes: list[Outcome] = []
    for start in range(0, len(queries), CHUNK):
        for outcome in router.decide_many(queries[start : start + CHUNK]):
            if isinstance(outcome, RouterError) and not isinstance(outcome, NoExpertError):
                raise outcome
            outcomes.append(outcome)
        progress(step, len(outcomes), len(queries))
    return outcomes


def chosen(among: Sequence[int], rows: Sequence[Row], count: int) -> list[int]:
    """At most `count` of the positions `among`, settled by the rows' texts alone, so that every run takes the same."""
    return sorted(among, key=lambda i: hashlib.sha256(rows[i].text.encode("utf-8", "replace")).digest())[:count]


def length_of(text: str) -> str:
    """The bucket of LENGTHS that a text falls into."""
    return next(name for most, name in LENGTHS if len(text) <= most)


def excerpt(text: str) -> str:
    """The start of a text in one line, EXCERPT characters at most."""
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"


def _single(row: Row) -> bool:
    """Whether the row is one prompt as somebody wrote it."""
    return len(row.turns) < 2 and not row.origin


def _replays(talks: Sequence[Asking], experts: Iterable[str | None]) -> list[Replay]:
    """`experts` of every turn of every conversation, one after the other."""
    given = iter(experts)
    return [Replay(tuple(str(next(given)) for _ in talk.moments), talk.labels) for talk in talks]


def _shares(values: Iterable[str]) -> dict[str, float]:
    count = Counter(values)
    return {name: number / count.total() for name, number in count.most_common()}


def _headline(figures: dict[str, Any]) -> dict[str, Any]:
    names = ("rows", "accuracy", "f1", "ece", "source_accuracy", "flips", "quality_lost")
    return {name: figures[name] for name in names}
