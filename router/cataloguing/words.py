"""Words: what the catalogue's fields may say: tasks, families, licences, benchmarks, languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args


def split(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


Task = Literal[
    "code", "math", "bio", "general", "reasoning", "tools", "vision", "multilingual", "japanese", "legal", "finance"
]
TASKS: tuple[str, ...] = get_args(Task)
Kind = Literal["permissive", "conditional", "research"]
KINDS: tuple[str, ...] = get_args(Kind)
Precision = Literal["bf16", "fp8", "4bit"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)  # from the widest to the narrowest
FAMILIES = (
    "Llama", "Mistral", "Mixtral", "Falcon", "OLMo", "Qwen", "DeepSeek", "Gemma", "Phi", "Granite", "StarCoder", "gpt-oss", "Yi",
    "GLM", "Kimi", "SmolLM", "Command",
)  # fmt: skip
# SPDX ids that allow any use, and ask no more than that their text and the names go along.
PERMISSIVE = ("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0", "Unlicense")
NON_COMMERCIAL = ("-NC", "NONCOMMERCIAL", "NON-COMMERCIAL", "RESEARCH LICENSE", "RESEARCH LICENCE")


@dataclass(frozen=True)
class Benchmark:
    """What it asks about, and the lowest and highest score that there can be: percent unless said otherwise."""

    task: Literal["code", "math", "bio", "general"]
    low: float = 0.0
    high: float = 100.0


BENCHMARKS: Mapping[str, Benchmark] = {
    **dict.fromkeys(("HumanEval", "MBPP", "LiveCodeBench", "SWE-bench Verified"), Benchmark("code")),
    **dict.fromkeys(("GSM8K", "MATH", "MATH-500", "AIME 2024", "AIME 2025"), Benchmark("math")),
    **dict.fromkeys(("MedQA", "PubMedQA", "MedMCQA"), Benchmark("bio")),
    **dict.fromkeys(("MMLU", "MMLU-Pro", "GPQA Diamond", "IFEval"), Benchmark("general")),
    "MT-Bench": Benchmark("general", 1.0, 10.0),
}
# ISO 639-1.
LANGUAGES = split(
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es "
    "et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki "
    "kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no "
    "nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te "
    "tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
