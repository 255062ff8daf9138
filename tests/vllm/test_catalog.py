"""The catalogue's classes are those of a real vLLM."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from router.cataloguing.architectures import ARCHITECTURES
from router.cataloguing.catalog import load_catalog

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
SCRIPT = """
import json
from vllm.model_executor.models.registry import ModelRegistry
print("classes:", json.dumps(list(ModelRegistry.get_supported_archs())))
"""


def test_every_class_that_the_catalogue_may_name_is_in_vllm_s_registry() -> None:
    python = Path(os.environ.get("MOE_GATEWAY_VLLM", ROOT / ".venv-vllm")) / "bin" / "python"
    if not python.exists():
        pytest.skip("no vLLM for the CPU here; install it with: make vllm")
    result = subprocess.run([python, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    [line] = [line for line in result.stdout.splitlines() if line.startswith("classes: ")]
    known = set(json.loads(line.removeprefix("classes: ")))
    assert {model.architecture.name for model in load_catalog().models.values() if model.architecture} - known == set()
    assert ARCHITECTURES - known == set()
