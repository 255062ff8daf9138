"""What the corpus is made of: rows by domain, language, style, topic, kind, length, surface and alternates, and what there
should be of each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router.authoring.authored import CONVERSATION, DOMAIN_OF_TOPIC, KINDS, STYLES, AuthoredRow
from router.authoring.surface import SURFACES, surfaces_of
from router.experts import BUILT_IN_DOMAINS

DOMAIN_SHARE = (0.15, 0.40)  # of the rows
LEAST_LANGUAGES = 12  # with so many rows and such a share of each domain:
LANGUAGE_ROWS = 40
LANGUAGE_SHARE = 0.15
LEAST_ROWS = 15  # of a style or a topic
LEAST_OF_KIND = 10
# By words: the first count that is too many, and the least share of the rows. Most prompts are one or two sentences.
LENGTHS: Mapping[str, tuple[float, float]] = {
    "under 10": (10, 0.15), "10 to 40": (41, 0.25), "41 to 120": (121, 0.10), "121 to 700": (701, 0.02),
    "over 700": (float("inf"), 0),
}  # fmt: skip
# The least share of the rows that look so: people write as they please, and few of those who write prompts for a corpus do.
SURFACE_SHARES: Mapping[str, float] = {
    "hasty spelling": 0.005, "lower case": 0.06, "capitals": 0.0008, "no punctuation": 0.05, "LaTeX": 0.003,
    "Markdown": 0.008, "code and prose": 0.015,
}  # fmt: skip
# Scripts without spaces between words, and about how many of their characters a word has.
_UNSPACED = (
    (re.compile("[\u3040-\u30ff\u3400-\u9fff]+"), 2),  # kana and Chinese characters
    (re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+"), 5),  # Thai, Lao, Burmese, Khmer
)


def word_count(text: str) -> int:
    """Words of a text; in scripts written without spaces an estimate."""
    joined = 0.0
    for script, characters in _UNSPACED:
        joined += sum(map(len, script.findall(text))) / characters
        text = script.sub(" ", text)
    return len(text.split()) + round(joined)


def length_of(text: str) -> str:
    """The name in LENGTHS."""
    words = word_count(text)
    return next(name for name, (end, _) in LENGTHS.items() if words < end)


@dataclass(frozen=True)
class Balance:
    """Rows by value and domain, such as `languages["de"]["code"]`; `lengths` and `surfaces` are of the last thing that the user
    says. `alternates` are the rows that have any, by who says why: the row, the rule of its topic, or nobody."""

    domains: Counter[str]
    languages: Mapping[str, Counter[str]]
    styles: Mapping[str, Counter[str]]
    topics: Mapping[str, Counter[str]]
    kinds: Mapping[str, Counter[str]]
    lengths: Mapping[str, Counter[str]]
    surfaces: Mapping[str, Counter[str]]
    alternates: Mapping[str, Counter[str]]

    @classmethod
    def of(cls, rows: Iterable[AuthoredRow]) -> Balance:
        kept = list(rows)
        languages = _counted((str(row.raw.get("lang", "en")), row.domain) for row in kept)
        styles, topics, kinds = (
            _counted((str(row.raw[field]), row.domain) for row in kept if field in row.raw)
            for field in ("style", "topic", "kind")
        )
        lengths = _counted((length_of(row.turns[-1]), row.domain) for row in kept)
        in_order = {name: lengths.get(name, Counter()) for name in LENGTHS}
        looks = _counted((name, row.domain) for row in kept for name in surfaces_of(row.turns[-1]))
        surfaces = {name: looks.get(name, Counter()) for name in SURFACES}
        alternates = _counted((row.explained_by, row.domain) for row in kept if row.alternates)
        domains = Counter(row.domain for row in kept)
        return cls(domains, languages, styles, topics, kinds, in_order, surfaces, alternates)

    @property
    def rows(self) -> int:
        return self.domains.total()

    def complaints(self) -> Iterator[str]:
        """What there is too little or too much of. Nothing is said of an empty corpus."""
        if not self.rows:
            return
        low, high = DOMAIN_SHARE
        for domain in BUILT_IN_DOMAINS:
            if not low <= (share := self.domains[domain] / self.rows) <= high:
                yield f"{domain} has {share:.0%} of the rows; {low:.0%} to {high:.0%} are wanted"
        yield from self._languages()
        for what, least, known, found in (
            ("style", LEAST_ROWS, STYLES - {CONVERSATION}, self.styles),
            ("topic", LEAST_ROWS, frozenset(DOMAIN_OF_TOPIC), self.topics),
            ("kind", LEAST_OF_KIND, KINDS, self.kinds),
        ):
            for name in sorted(known):
                if (rows := found.get(name, Counter[str]()).total()) < least:
                    yield f"{what} {name} has {rows} rows; {least} are wanted"
        for name, (_, wanted) in LENGTHS.items():
            if (share := self.lengths[name].total() / self.rows) < wanted:
                yield f"{share:.1%} of the rows have {name} words; {wanted:.0%} are wanted"
        for name, wanted in SURFACE_SHARES.items():
            if (share := self.surfaces[name].total() / self.rows) < wanted:
                yield f"{share:.2%} of the rows have the surface {name}; {wanted:.2%} are wanted"

    def _languages(self) -> Iterator[str]:
        large = {name: counts for name, counts in self.languages.items() if counts.total() >= LANGUAGE_ROWS}
        if len(large) < LEAST_LANGUAGES:
            yield f"{len(large)} languages have {LANGUAGE_ROWS} rows; {LEAST_LANGUAGES} are wanted"
        for name, counts in sorted(large.items()):
            for domain in BUILT_IN_DOMAINS:
                if (share := counts[domain] / counts.total()) < LANGUAGE_SHARE:
                    yield f"{domain} has {share:.0%} of the rows in {name}; {LANGUAGE_SHARE:.0%} are wanted"

    def described(self) -> dict[str, Any]:
        parts = ("languages", "styles", "topics", "kinds", "lengths", "surfaces", "alternates")
        return {
            "rows": self.rows,
            "domains": dict(self.domains),
            **{part: {name: dict(counts) for name, counts in getattr(self, part).items()} for part in parts},
        }


def _counted(pairs: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Counts by domain of each value, the most frequent value first."""
    found: dict[str, Counter[str]] = {}
    for value, domain in pairs:
        found.setdefault(value, Counter())[domain] += 1
    return dict(sorted(found.items(), key=lambda item: (-item[1].total(), item[0])))
