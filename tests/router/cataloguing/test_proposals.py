"""Prompts of the corpus are proposed for what a new domain is called."""

from __future__ import annotations

from router.artifact import PACKAGED
from router.cataloguing.proposals import COUNT, OTHER_LANGUAGES, propose
from router.dataset import CORPUS, read_rows
from router.experts import parse_experts
from router.routing import Router

FILE = "version: 1\nexperts:\n  a: {model: m, domains: [code], upstream: {vllm: [http://h/v1]}}\n"


def test_they_are_about_it_the_nearest_first_and_in_several_languages() -> None:
    router = Router.load(parse_experts(FILE), PACKAGED)
    rows = {row.text: row for row in read_rows(CORPUS / "general.jsonl")}
    found = [rows[text] for text in propose(router, "legal: contracts, tenancy, courts")]
    assert len(found) == COUNT
    assert sum(row.topic == "law" for row in found) >= COUNT / 2
    others = [row.language for row in found if row.language != "en"]
    assert len(others) == len(set(others)) == OTHER_LANGUAGES
