"""Whether an answer is right, by what its prompt says of the right one."""

from __future__ import annotations

import re
import unicodedata

from gateway.comparing.answers import Answer
from gateway.comparing.prompts import Prompt
from gateway.comparing.testing import run_test

_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_WORD = r"(?<![^\W_]){}(?![^\W_])"
_NUMBER = r"(?<![\w.\-\u2212]){}(?!\w|\.\d*[1-9])"
NOT_RUN = "its test was not run"


def grade(prompt: Prompt, answer: Answer, tests: bool, seconds: float) -> None:
    """Write the answer's grade and why. A prompt's `test` is run only with `tests`; without it nobody can say."""
    answer.grade, answer.why = None, ""
    if not prompt.graded or answer.error:
        return
    if prompt.expected is not None and not has(answer.text, prompt.expected):
        answer.grade, answer.why = 0.0, f"expected {prompt.expected}"
    elif prompt.regex is not None and re.search(prompt.regex, answer.text) is None:
        answer.grade, answer.why = 0.0, f"no match of {prompt.regex}"
    elif prompt.test is None:
        answer.grade = 1.0
    elif not tests:
        answer.why = NOT_RUN
    else:
        verdict = run_test(prompt.test, answer.text, seconds)
        answer.grade, answer.why = float(verdict.passed), verdict.why


def has(text: str, expected: str) -> bool:
    r"""Whether `expected` stands in `text` as whole words, whatever the case and the spaces.

    Where the text has results in \boxed{…}, the last of them is what it says. Commas within numbers do not count; 42 stands in
    42.0, but neither in 42.5 nor in -42.
    """
    boxes = _BOX.findall(text)
    said, wanted = _plain(boxes[-1] if boxes else text), _plain(expected)
    form = _NUMBER if re.fullmatch(r"\d+(\.\d+)?", wanted) else _WORD
    return re.search(form.format(re.escape(wanted)), said) is not None


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return " ".join(text.split())
