from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from router.authoring.authored import Finding
from router.authoring.lint import Report, lint, skeleton_of
from router.dataset import CORPUS, OWN_SET, load_corpus, read_rows
from router.errors import CorpusError

LOAF = "How long does a loaf of rye bread keep in a linen bag?"
RYE = "How long does a loaf of rye bread keep in a paper bag?"
TIGRIS = "Between which two rivers did the first cities rise, and why there?"


class Folders:
    """A corpus, a glossary and an evaluation set in a folder; each row of the corpus stands in general.jsonl."""

    def __init__(self, parent: Path) -> None:
        self.corpus, self.glossary, self.own = (
            parent / "corpus",
            parent / "glossary",
            parent / "measuring" / "own.jsonl",
        )
        for folder in (self.corpus, self.glossary, self.own.parent):
            folder.mkdir()
        self.measure()
        self.write()

    def write(self, *rows: str | dict[str, Any]) -> None:
        self._dump(self.corpus / "general.jsonl", [_row(row) for row in rows or (TIGRIS,)])

    def measure(self, *rows: str | dict[str, Any]) -> None:
        self._dump(self.own, [{"id": f"own-{i}", "part": "plain", **_row(row)} for i, row in enumerate(rows, 1)])

    def found(self, *checks: str, against: tuple[Path, ...] = ()) -> list[tuple[str, int, str]]:
        """File, line and message of what is found, by these checks; balance, which so few rows cannot have, aside."""
        findings = lint(self.corpus, self.glossary, self.own, against).findings
        kept = [f for f in findings if f.check != "balance"]
        assert {f.check for f in kept} <= set(checks), kept
        return [(f.file, f.line, f.message) for f in kept]

    @staticmethod
    def _dump(path: Path, rows: list[dict[str, Any]]) -> None:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _row(row: str | dict[str, Any]) -> dict[str, Any]:
    return {"prompt": row, "domain": "general", "lang": "en", "style": "ask"} if isinstance(row, str) else row


def talk(*said: str, **fields: Any) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
    row = {"messages": messages, "domain": "general", "lang": "en", "style": "conversation", "kind": "continue"}
    return row | fields


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


# What the package ships


@pytest.fixture(scope="module")
def shipped() -> Report:
    return lint()


@pytest.mark.timeout(600)  # some 7 s by itself, minutes where the machine has other work
def test_nothing_is_wrong_with_what_the_package_ships(shipped: Report) -> None:
    assert [str(finding) for finding in shipped.findings] == []


@pytest.mark.timeout(600)
def test_every_row_that_the_package_ships_was_looked_at(shipped: Report) -> None:
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in CORPUS.glob("*.jsonl"))
    assert shipped.balance.rows == lines == len(load_corpus())
    assert lines > 10_000
    assert len(list(read_rows(OWN_SET))) > 700


# Rows


def test_a_wrong_row_is_named_with_file_and_line(folders: Folders) -> None:
    folders.write(TIGRIS, {"prompt": LOAF, "domain": "general", "style": "asks"})
    folders.measure(LOAF.upper(), {"prompt": " ", "domain": "bio"})
    wrong = folders.found("row", "leak")
    assert ("corpus/general.jsonl", 2, "unknown style 'asks'; did you mean 'ask'?") in wrong
    assert ("measuring/own.jsonl", 2, "prompt is empty") in wrong


def test_ids_of_the_evaluation_set_are_there_and_stand_once(folders: Folders) -> None:
    folders.measure(LOAF, _row("Name a bird.") | {"id": "own-1"}, _row("Name a fish.") | {"id": ""})
    assert folders.found("row") == [
        ("measuring/own.jsonl", 2, "the id 'own-1' is that of measuring/own.jsonl:1"),
        ("measuring/own.jsonl", 3, "a row of an evaluation set has an id"),
    ]


@pytest.mark.parametrize("content", [b"", None])
def test_a_corpus_without_rows_or_an_evaluation_set_that_is_not_there_is_refused(
    folders: Folders, content: bytes | None
) -> None:
    if content is None:
        folders.own.unlink()
        message = r"own\.jsonl cannot be read"
    else:
        (folders.corpus / "general.jsonl").write_bytes(content)
        message = "no training prompts in .*corpus"
    with pytest.raises(CorpusError, match=message):
        folders.found()


def test_a_file_that_is_not_text_is_refused_by_name(folders: Folders) -> None:
    (folders.corpus / "bio.jsonl").write_bytes("größe".encode("latin-1"))
    with pytest.raises(CorpusError, match=r"bio\.jsonl cannot be read"):
        folders.found()


# Duplicates


def test_the_same_text_twice_is_a_duplicate_whatever_its_case_and_punctuation(folders: Folders) -> None:
    folders.write("Name a bird.", LOAF, "NAME a bird")
    ((file, line, message),) = folders.found("duplicate")
    assert (file, line) == ("corpus/general.jsonl", 3)
    assert message == "the same as corpus/general.jsonl:1: 'NAME a bird'"


def test_the_same_text_under_two_domains_is_a_contradiction(folders: Folders) -> None:
    folders.write(LOAF, _row(LOAF) | {"domain": "bio"})
    ((_, line, message),) = folders.found("two-domains")
    assert (line, message) == (2, f"bio here, general in corpus/general.jsonl:1: {LOAF!r}")


def test_texts_of_nothing_but_punctuation_are_told_apart(folders: Folders) -> None:
    folders.write("???", "!!!", "...")
    assert folders.found() == []


def test_a_near_duplicate_is_named_with_the_row_that_it_is_like(folders: Folders) -> None:
    folders.write(LOAF, TIGRIS, RYE)
    ((file, line, message),) = folders.found("near-duplicate")
    assert (file, line) == ("corpus/general.jsonl", 3)
    assert "in corpus/general.jsonl:1: " in message


def test_rows_that_share_a_phrase_are_none(folders: Folders) -> None:
    folders.write(
        "What's the difference between a fjord and a ria?",
        "What's the difference between the House and the Senate?",
        "How long does a loaf of bread keep?",
        "How long does it take to bake a cake for forty guests?",
    )
    assert folders.found() == []


def test_a_text_that_contains_another_is_like_it_if_that_is_long_enough(folders: Folders) -> None:
    options = " A. 2 days B. 9 days C. a month D. it depends on the salt, on the flour and on the weather of the region"
    short = "Name a bird of the tundra"
    folders.write(
        LOAF, LOAF + options + options.upper()[:60], short, f"{short} that sings at night and winters on an island."
    )
    ((_, line, _),) = folders.found("near-duplicate")
    assert line == 2


def test_within_the_corpus_a_conversation_is_compared_as_a_whole(folders: Folders) -> None:
    first, second = "That depends on the crust; a week, I'd say.", "Two rolls will be stale by tomorrow evening."
    folders.write(talk(LOAF, first, "and rolls?"), talk("and toast?", second, RYE), talk("and rolls?", "Hardly.", "ok"))
    assert folders.found() == []
    folders.write(talk(LOAF, first, "and rolls?"), talk(RYE, first, "and rolls?"))
    assert [line for _, line, _ in folders.found("near-duplicate")] == [2]


# Leaks


@pytest.mark.parametrize("measured", [LOAF, LOAF.lower(), RYE], ids=["same", "case", "near"])
def test_a_row_of_the_evaluation_set_in_the_corpus_is_a_leak(folders: Folders, measured: str) -> None:
    folders.write(TIGRIS, LOAF)
    folders.measure("Name a bird.", measured)
    ((file, line, message),) = folders.found("leak")
    assert (file, line) == ("corpus/general.jsonl", 2)
    assert "in measuring/own.jsonl:2: " in message


def test_a_short_text_leaks_only_if_it_is_the_same(folders: Folders) -> None:
    folders.write("mitosis", "meiosis")
    folders.measure("Mitosis!", "meioses")
    assert [line for _, line, _ in folders.found("leak")] == [1]


def test_each_turn_of_a_conversation_may_be_a_leak(folders: Folders) -> None:
    answer = "That depends on its crust, and on how dry the room is; a week at least."
    folders.write(TIGRIS, talk(LOAF, answer, "and rolls?"))
    folders.measure(
        talk("and rolls?", "Two days.", RYE, style="ask"), talk("and rolls?", "Hardly.", "and rolls?", style="ask")
    )
    assert [(line, "own.jsonl:1" in message) for _, line, message in folders.found("leak")] == [(2, True)]


def test_a_leak_is_told_once(folders: Folders) -> None:
    folders.write(LOAF)
    folders.measure(talk(LOAF, "A week.", LOAF + " And rolls?", style="ask"))
    assert len(folders.found("leak")) == 1


def test_rows_of_the_evaluation_set_may_be_alike(folders: Folders) -> None:
    folders.measure(LOAF, RYE)
    assert folders.found() == []
    folders.measure(LOAF, LOAF)
    assert [file for file, _, _ in folders.found("duplicate")] == ["measuring/own.jsonl"]


def test_other_evaluation_sets_are_looked_at_as_well_and_only_for_leaks(folders: Folders, tmp_path: Path) -> None:
    folders.write(TIGRIS, LOAF)
    other = tmp_path / "other.jsonl.gz"
    rows = [{"prompt": RYE, "domain": "cooking", "whatever": 5}, {"prompt": RYE, "domain": "x"}, {"note": "no row"}]
    other.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert [line for _, line, _ in folders.found("leak", against=(other,))] == [2, 2]


# Templates


@pytest.mark.parametrize(
    ("text", "skeleton"),
    [
        ("A train leaves Lyon at 9:40, costs 1,250.50", "a train leaves name at 0 costs 0"),
        ("Dear Ms Okafor, ask Anna Maria Schmidt. She knows", "dear name ask name she knows"),
        ("Is it x2 or x3?", "is it x0 or x0"),
    ],
)
def test_numbers_and_names_are_masked(text: str, skeleton: str) -> None:
    assert skeleton_of(text) == skeleton


def test_one_sentence_with_other_numbers_and_names_is_a_template_from_the_third_on(folders: Folders) -> None:
    made = [f"Did {name} sell {n} figs?" for name, n in (("Ada", 17348), ("Bartholomew", 2), ("Xiu-Ying", 560))]
    folders.write(*made[:2])
    assert folders.found() == []
    folders.write(*made)
    ((_, line, message),) = folders.found("template")
    assert line == 1
    assert message.startswith("3 rows are the same but for numbers and names: ")


def test_one_long_opening_may_stand_once_for_each_domain(folders: Folders) -> None:
    opening = "Read the passage and answer the question that comes after it in one word. "
    ends = [
        "Whales breathe air, dive for an hour and feed their calves with fat milk. What do they breathe?",
        "The treaty of 1648 ended thirty years of quarrels among princes. Which century was that?",
        "A stack gives back what was put on it last, a queue what came first. Which one is a pile of plates?",
        "Squares of odd numbers leave one when they are divided by eight. What does 49 leave?",
        "Nobody had told the miller of the flood, so he slept until noon. Was he warned?",
    ]
    folders.write(*(opening + end for end in ends[:4]))
    assert folders.found() == []
    folders.write(*(opening + end for end in ends))
    ((_, _, message),) = folders.found("template")
    assert message.startswith("5 rows begin alike")


# Balance and glossary


def test_a_corpus_out_of_balance_is_told_for_the_folder(folders: Folders) -> None:
    findings = lint(folders.corpus, folders.glossary, folders.own).findings
    assert Finding("corpus", 0, "balance", "code has 0% of the rows; 15% to 40% are wanted") in findings


@pytest.mark.parametrize(
    "line",
    ["suma", "suma\t", "\tsum", "suma\tsum\tx", "suma \tsum", " suma\tsum", "suma\tsum ", "suma\t sum", "suma sum", ""],
)
def test_a_malformed_line_of_the_glossary_is_named(folders: Folders, line: str) -> None:
    (folders.glossary / "es.tsv").write_text(f"célula\tcell\n{line}\nmiel\thoney\n", "utf-8")
    ((file, number, message),) = folders.found("glossary")
    assert (file, number, message) == ("glossary/es.tsv", 2, f"not a word, a tab and its gloss: {line!r}")


@pytest.mark.parametrize("gloss", ["Sum", "größe", "the sum of it all", "sum  up"])
def test_a_gloss_is_a_few_plain_english_words(folders: Folders, gloss: str) -> None:
    (folders.glossary / "es.tsv").write_text(f"suma\t{gloss}\n", "utf-8")
    assert [(file, line) for file, line, _ in folders.found("glossary")] == [("glossary/es.tsv", 1)]


def test_a_word_stands_once_in_a_language(folders: Folders) -> None:
    (folders.glossary / "es.tsv").write_text("suma\tsum\nmiel\thoney\nSuma\tsum\nmiel\tmile\nsume\tadd up\n", "utf-8")
    (folders.glossary / "it.tsv").write_text("suma\tsome\n", "utf-8")
    assert folders.found("glossary") == [
        ("glossary/es.tsv", 3, "'Suma' stands in line 1 again"),
        ("glossary/es.tsv", 4, "'miel' stands in line 2 as 'honey' and here as 'mile'"),
    ]


# The report


def test_a_report_says_what_there_is_and_what_is_wrong(folders: Folders) -> None:
    folders.write(LOAF, LOAF)
    report = lint(folders.corpus, folders.glossary, folders.own)
    described = json.loads(json.dumps(report.described()))
    assert (described["ok"], described["rows"], described["domains"]) == (False, 2, {"general": 2})
    assert described["lengths"]["10 to 40"] == {"general": 2}
    assert {"file", "line", "check", "message"} == set(described["problems"][0])
    assert [p["line"] for p in described["problems"] if p["check"] == "duplicate"] == [2]


def test_findings_come_in_the_order_of_files_and_lines(folders: Folders) -> None:
    folders.write(TIGRIS, "", "Name a bird.", "NAME A BIRD", " ")
    places = [(f.file, f.line) for f in lint(folders.corpus, folders.glossary, folders.own).findings]
    assert places == sorted(places)
    assert [line for _, line in places if line] == [2, 4, 5]
