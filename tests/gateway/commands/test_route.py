from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner, Result

from gateway.cli import app
from router.errors import NoExpertError

ROOT = Path(__file__).resolve().parents[3]


def route(prompt: str, state: Path) -> Result:
    """What the command says of a prompt, with the shipped experts, none of which takes more than 4,096 tokens."""
    return CliRunner().invoke(app, ["route", prompt, "--config", str(ROOT / "experts.yaml"), "--state", str(state)])


def test_a_prompt_is_as_long_for_this_command_as_it_is_in_a_request(tmp_path: Path) -> None:
    result = route("Why is the sky blue? " * 2000, tmp_path)
    assert isinstance(result.exception, NoExpertError)
    assert "at least 5250 tokens long; the largest context window here is 4096" in str(result.exception)
    assert route("Why is the sky blue?", tmp_path).exit_code == 0
