"""The shipped experts.yaml: what is ready to uncomment really is ready."""

from __future__ import annotations

import re

from router.experts import parse_experts
from tests.integration.conftest import ROOT

TEXT = (ROOT / "experts.yaml").read_text("utf-8")
# Each expert: its stand-in's lines, then the licence and the real specialist's lines behind "# ".
SPECIALIST = re.compile(r"(^  \w+:\n)((?:    [^#\s].*\n|      .*\n)+)((?:    # .*\n)+)", re.M)


def uncommented(text: str) -> str:
    """The file with every stand-in replaced by the specialist beside it."""

    def swap(match: re.Match[str]) -> str:
        lines = [line.removeprefix("    # ") for line in match[3].splitlines()]
        return match[1] + "".join(f"    {line}\n" for line in lines if re.match(r"\w+: ", line) and line[0].islower())

    return SPECIALIST.sub(swap, text)


def test_every_stand_in_has_a_real_specialist_beside_it_with_licence_price_and_window() -> None:
    real = parse_experts(uncommented(TEXT))
    default = parse_experts(TEXT)
    assert set(real.experts) == set(default.experts) == {"coder", "mathematician", "biologist", "general"}
    assert TEXT.count("# Licence: ") == 4
    for expert in default.experts.values():
        assert expert.stand_in
    for expert in real.experts.values():
        assert not expert.stand_in
        assert "/" in expert.model
        assert expert.price is not None
        assert (expert.context_window or 0) >= 131072
    assert real.domain_names == default.domain_names == ("code", "math", "bio", "general")


def test_the_file_says_plainly_that_they_are_stand_ins() -> None:
    assert "STAND-INS" in TEXT.split("version:")[0]
