"""Lines of a wrong file are shown; secrets in them are not."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.checking.excerpt import excerpt
from gateway.checking.masking import MASK, masked, masked_words, shown_column

STYLES = [
    "    upstream:\n      api_key: {}",
    "    upstream: {{vllm: [http://a/v1], api_key: {}}}",
    "    upstream: {{vllm: [http://a/v1], api_key: {}, base_url: x}}",
    '    upstream: {{"api_key":"{}","vllm":["http://a/v1"]}}',
    "      api_key: '{}'  # mine",
    "      api_key:\n        {}",
    "      api_key: |\n        {}\n        {}",
    '      api_key: "first\n        {}"',
    "      ApiKey: {}",
    "      hf_token = {}",
    "      env:\n        PATH_OF_IT: {}",
    "      env: {{A: x, B: {}}}",
    '      env: {{A: "x,{}"}}',
    "      # api_key: {}",
    "      api_key: ${{NAME:-{}}}",
    "      vllm: [http://me:{}@host/v1]",
    "      password: {}, {}",
    '      launch: {{args: "--hf-token {} --seed 1"}}',
    "      launch: {{args: [--api-key, {}, '--hf-token', '{}']}}",
    "      args: --tokenizer me --hf-token={}",
    "      args:\n        - --api-key\n        - {}",
]
SECRETS = st.text(string.ascii_letters + string.digits + "_-+/.", min_size=8, max_size=40).filter(
    lambda secret: not any(secret[:4] in style or secret[-4:] in style for style in STYLES)
)


@settings(max_examples=400)
@given(style=st.sampled_from(STYLES), secret=SECRETS, column=st.integers(1, 120))
def test_no_part_of_a_secret_is_shown_wherever_the_mark_stands(style: str, secret: str, column: int) -> None:
    lines = style.format(secret, secret).split("\n")
    for number in range(1, len(lines) + 1):
        found = excerpt(lines, number, column)
        shown = found.text if found else ""
        assert secret[:4] not in shown
        assert secret[-4:] not in shown


@pytest.mark.parametrize("secret", ["sk-proj-abcdefgh", "hf_abcdefghij", "ghp_abcdefghi", "AKIAABCDEFGH", "a1" * 12])
def test_what_looks_like_a_key_is_masked_wherever_it_stands(secret: str) -> None:
    assert masked([f"    apikye: {secret}  # {secret}"], 1)[0] == f"    apikye: {MASK}  # {MASK}"


@pytest.mark.parametrize("line", [
    "    model: Qwen/Qwen3-Coder-30B-A3B-Instruct-2507-FP8",
    "    upstream: {vllm: [http://10.0.0.5:8000/v1], api_key: ${CODER_KEY}}",
    "    api_key: file:/run/secrets/coder",
    "    defaults: {max_tokens: 512}",
    "    env: {HF_TOKEN: ${HF_TOKEN}, OTHER: '${OTHER}'}",
    "    args: --max-model-len 65536 --served-by me",
    "    args: --tokenizer me --max-num-batched-tokens 8192 --enable-auto-tool-choice",
])  # fmt: skip
def test_what_is_no_secret_is_shown(line: str) -> None:
    assert masked([line], 1) == (line, [])


def test_what_stands_beside_a_secret_is_shown_and_its_column_moves() -> None:
    line = "a: {api_key: 0123456789, url: x}"
    shown, spans = masked([line], 1)
    assert shown == f"a: {{api_key: {MASK}, url: x}}"
    assert shown_column(line.index("url"), spans) == shown.index("url")
    assert shown_column(line.index("0") + 3, spans) == shown.index(MASK)
    assert shown_column(0, spans) == 0


def test_a_secret_ends_with_what_is_indented_under_it() -> None:
    lines = ["env:", "  A: one", "model: two"]
    assert [masked(lines, number)[0] for number in (1, 2, 3)] == ["env:", f"  A: {MASK}", "model: two"]


@pytest.mark.parametrize(
    "piece", ["/", "key", "token: ", "token: x #", "env: {", "a:file:x", "key:'", "--key ", "${", "x "]
)
def test_a_line_is_judged_in_a_time_that_grows_with_it_alone(piece: str) -> None:
    """What goes back over what it has read takes hours for these, or as good as for ever."""
    line = f"env: {{{piece * 20_000}!"
    masked(["key: a", "  b: c", line, f"  {line[6:]}", "    d: e"], 3)
    masked(["key: a", "  b: c", f"  {line[6:]}", "    d: e"], 4)


def test_arguments_are_masked_word_by_word() -> None:
    words = ["--seed", "1", "--hf-token", "me", "--api-key=me", "--tokenizer", "me"]
    assert masked_words(words) == ["--seed", "1", "--hf-token", MASK, f"--api-key={MASK}", "--tokenizer", "me"]
