"""What a page's commands need that is not on the page, and where they differ from what a reader types: here and in instead/."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

ADMIN_KEY = "admin-key-of-the-pages"
REQUEST_ID = "req-of-the-pages"
# What the pages call by a name, and the reader knows.
VARIABLES = {
    "ADMIN_KEY": ADMIN_KEY,
    "MOE_GATEWAY_ADMIN_KEY": ADMIN_KEY,
    "KEY": "any",  # no keys are set, so that none is looked at
    "REQUEST_ID": REQUEST_ID,
    "GATEWAY": "http://127.0.0.1:8080",
}


@dataclass(frozen=True)
class Instead:
    """What `pattern` finds is `by` where it runs. `{gateway}` is the page's gateway, `{models}` a model server for it."""

    pattern: str
    by: str
    why: str


SUBSTITUTIONS = (
    Instead(r"(?:127\.0\.0\.1|localhost):8080", "{gateway}", "the port may be taken"),
    Instead(r"10\.0\.0\.\d+:\d+", "{models}", "no machine of that address is here"),
    Instead(
        r"embedded: smollm2",
        "vllm: [http://{models}/v1]",
        "its engine takes seconds an answer; CI's fresh clone asks it",
    ),
    Instead(r"(?m)^(moe-gateway serve[^&\n]*?)\s*&$", r"\1", "what serves is left running anyway"),
    Instead(r"postgresql://[^ '\"]+", "sqlite:///elsewhere.db", "no PostgreSQL is here; tests/gateway/ledger has one"),
    Instead(
        r"(?m)^deploy/vllm-cpu/(\w+)\.sh .*",
        r"test -x deploy/vllm-cpu/\1.sh",
        "minutes and gigabytes; tests/vllm has it",
    ),
    Instead(
        r"\S+/bin/python (deploy/vllm-cpu/\w+\.py) .*",
        r"test -f \1",
        "it is run by vLLM's own Python; tests/vllm has it",
    ),
    Instead(
        r"moe-gateway evaluate (?!.*--quick)", "moe-gateway evaluate --quick ", "baselines and plots take many seconds"
    ),
    Instead(r"\S+/bin/python -m pytest (\S+)", r'test -d "$PAGES_ROOT/\1"', "tests do not run tests"),
)
# The commands that end with another status than 0, by page and words.
STATUSES = {("README.md", "moe-gateway workers status"): 1}  # no worker: the shipped experts.yaml launches none
# Python that cannot run here is compiled: by the library that it imports.
COMPILED = {"anthropic": "it is in an environment of its own, where tests/clients runs such code"}


def substituted(text: str, gateway: str, models: Callable[[str], str]) -> str:
    """As it runs: `gateway` is host and port, `models` gives host and port of a model server for what stands in the page."""
    for instead in SUBSTITUTIONS:
        by = instead.by

        def made(found: re.Match[str], by: str = by) -> str:
            said = found.expand(by) if "\\" in by else by
            if "{models}" in said:
                said = said.replace("{models}", models(found[0]))
            return said.replace("{gateway}", gateway)

        text = re.sub(instead.pattern, made, text)
    return text


def with_statuses(page: str, text: str) -> str:
    """A command that has to fail is put behind `expect STATUS`."""
    for (where, words), status in STATUSES.items():
        if where == page:
            assert words in text, f"{page} has no {words!r}: take it out of STATUSES"
            text = text.replace(words, f"expect {status} {words}")
    return text
