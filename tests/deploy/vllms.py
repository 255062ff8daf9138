"""What the real vLLM has, read from the one that is installed: its arguments, its variables, its metrics."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.files import ROOT

# Run with vLLM's own Python: the arguments of each worker in, what its parser made of them out.
PARSE = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.reasoning.abs_reasoning_parsers import ReasoningParserManager
from vllm.tool_parsers.abstract_tool_parser import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
kept = ("model_tag", "port", "max_model_len", "max_num_seqs", "tensor_parallel_size", "tool_call_parser", "reasoning_parser",
        "shutdown_timeout", "gpu_memory_utilization", "max_num_batched_tokens", "enable_prompt_tokens_details")
def refuse(message):
    raise ValueError(message)
parser = make_arg_parser(FlexibleArgumentParser())
parser.error = refuse
answers = []
for arguments in json.load(sys.stdin):
    try:
        made = parser.parse_args(arguments)
        validate_parsed_serve_args(made)
    except Exception as error:
        answers.append({"error": f"{type(error).__name__}: {error}"})
    else:
        answers.append({name: getattr(made, name) for name in kept})
parsers = {"tools": ToolParserManager.list_registered(), "reasoning": ReasoningParserManager.list_registered()}
json.dump({"answers": answers, **parsers}, open(sys.argv[1], "w"))
"""


def environment() -> Path:
    """Where vLLM is installed; skips where it is not."""
    folder = Path(os.environ.get("MOE_GATEWAY_VLLM", ROOT / ".venv-vllm"))
    if not (folder / "bin" / "vllm").exists():
        pytest.skip("no vLLM for the CPU here; install it with: make vllm")
    return folder


def source(package: str, file: str) -> str:
    """The text of a file of one of its packages."""
    [path] = environment().glob(f"lib/python3*/site-packages/{package}/{file}")
    return path.read_text("utf-8")


def parsed(workers: Sequence[tuple[str, ...]], answer: Path) -> Any:
    """What vLLM's parser makes of each worker's arguments, and the names of the parsers that it knows. Takes ten seconds, alone."""
    python = environment() / "bin" / "python"
    done = subprocess.run(
        [str(python), "-c", PARSE, str(answer)],
        input=json.dumps(workers), capture_output=True, text=True, check=False, timeout=350, cwd=answer.parent,
        env={**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(answer.read_text("utf-8"))


@cache
def variables() -> set[str]:
    """Those of vLLM's own list, and those of the library that fetches weights."""
    tree = ast.parse(source("vllm", "envs.py"))
    ours: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            ours |= {key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    theirs = re.findall(r"[\"'](HF_\w+)[\"']", source("huggingface_hub", "constants.py"))
    token = re.findall(r"[\"'](HF_TOKEN)[\"']", source("huggingface_hub", "utils/_auth.py"))
    return {name for name in ours if name.startswith("VLLM_")} | set(theirs) | set(token)


@cache
def series() -> dict[str, set[str]]:
    """The series of its /metrics, by the names that a query uses, and the labels that all of them have."""
    text = source("vllm", "v1/metrics/loggers.py")
    declared = re.findall(r'(_gauge|_counter|_histogram)_cls\(\s*name="(vllm:\w+)"', text)
    endings = {"_gauge": ("",), "_counter": ("_total",), "_histogram": ("_bucket", "_count", "_sum")}
    labels = {"model_name", "engine"}
    return {
        name + ending: {*labels, *(["le"] if ending == "_bucket" else [])}
        for kind, name in declared
        for ending in endings[kind]
    }
