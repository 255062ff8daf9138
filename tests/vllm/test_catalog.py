"""What the catalogue says of vLLM, asked of a real one: classes of models, launch lines, parsers, ways to quantise."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from router.cataloguing.architectures import ARCHITECTURES
from router.cataloguing.catalog import load_catalog
from router.cataloguing.fitting import ONLINE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]
# Takes launch lines by name; tells the classes that vLLM knows, and which of the lines it does not take and why.
SCRIPT = """
import json, sys
from vllm.entrypoints.cli.serve import cmd_init
from vllm.model_executor.models.registry import ModelRegistry
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
commands = parser.add_subparsers(dest="subparser")
for command in cmd_init():
    command.subparser_init(commands)
wrong = {}
for name, words in json.load(sys.stdin).items():
    try:
        args = parser.parse_args(words)
    except SystemExit:
        wrong[name] = "a flag"
        continue
    if args.tool_call_parser and args.tool_call_parser not in ToolParserManager.list_registered():
        wrong[name] = "a tool parser"
    if args.reasoning_parser and args.reasoning_parser not in ReasoningParserManager.list_registered():
        wrong[name] = "a reasoning parser"
print("told:", json.dumps({"classes": list(ModelRegistry.get_supported_archs()), "wrong": wrong}))
"""
WRONG = {"no flag": ["serve", "a/b", "--nonsense"], "no parser": ["serve", "a/b", "--tool-call-parser", "nonsense"]}


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    python = Path(os.environ.get("MOE_GATEWAY_VLLM", ROOT / ".venv-vllm")) / "bin" / "python"
    if not python.exists():
        pytest.skip("no vLLM for the CPU here; install it with: make vllm")
    lines = {key: list(model.command[1:]) for key, model in load_catalog().models.items()}
    lines |= {f"at {precision}": ["serve", "a/b", *words] for precision, words in ONLINE.items()}
    lines["split"] = ["serve", "a/b", "--tensor-parallel-size", "2", "--max-model-len", "8192"]
    asked = json.dumps(lines | WRONG)
    result = subprocess.run(
        [python, "-c", SCRIPT], input=asked, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    [line] = [line for line in result.stdout.splitlines() if line.startswith("told: ")]
    answer: dict[str, Any] = json.loads(line.removeprefix("told: "))
    return answer


def test_every_class_that_the_catalogue_may_name_is_in_vllm_s_registry(told: dict[str, Any]) -> None:
    known = set(told["classes"])
    assert {model.architecture.name for model in load_catalog().models.values() if model.architecture} - known == set()
    assert ARCHITECTURES - known == set()


def test_vllm_takes_every_launch_line_and_has_the_parsers_that_they_name(told: dict[str, Any]) -> None:
    assert told["wrong"] == {"no flag": "a flag", "no parser": "a tool parser"}
