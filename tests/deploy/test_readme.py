"""deploy/README.md: the files, variables, paths and flags that it names are there."""

from __future__ import annotations

import re

from tests.deploy.files import COMPOSE, DEPLOY, ROOT
from tests.deploy.gateways import flags, paths, variables

TEXT = (DEPLOY / "README.md").read_text("utf-8")
FILE = re.compile(r"`([\w./-]+\.(?:ya?ml|md|sh|txt|dockerignore)|[\w./-]+/)`")


def test_files_are_there() -> None:
    named = {name for name in FILE.findall(TEXT) if not name.startswith("/")}
    assert len(named) > 10
    assert not [name for name in named if not ((DEPLOY / name).exists() or (ROOT / name).exists())]


def test_variables_are_read() -> None:
    named = set(re.findall(r"\bMOE_GATEWAY_\w+", TEXT))
    assert named
    assert named <= variables()


def test_paths_are_answered() -> None:
    named = set(re.findall(r"(?<![\w.])/(?:v1|admin|health|ready|metrics)[\w/]*", TEXT)) - {"/v1", "/admin"}
    assert {"/health", "/ready", "/admin/reload"} <= named
    assert named <= paths()


def test_flags_of_serve_are_its_own() -> None:
    named = set(re.findall(r"`serve (--[\w-]+)", TEXT))
    assert named <= flags()


def test_every_top_level_file_is_told_of() -> None:
    told = {path.name for path in DEPLOY.iterdir() if path.name in TEXT}
    assert {path.name for path in DEPLOY.iterdir()} - told <= {".gitignore", ".env", "README.md"}


def test_profiles_are_those_of_compose() -> None:
    assert set(re.findall(r"--profile (\w+)", TEXT)) == set(re.findall(r"--profile (\w+)", COMPOSE.read_text("utf-8")))
