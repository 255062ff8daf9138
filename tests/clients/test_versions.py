"""The README tells the versions that are installed, and as many checks of each client as there are."""

from __future__ import annotations

import json
import re
from importlib.metadata import distributions

import pytest

from tests.clients.groups import GROUPS, HERE, Group, environment

ROW = re.compile(r"^\| `([^`]+)` \| ([\d.]+) \| (\w+) \| (\d+|–) \|", re.MULTILINE)
ROWS = [
    (group, package, version, checks)
    for package, version, group, checks in ROW.findall((HERE / "README.md").read_text("utf-8"))
]


def _installed(group: Group, package: str) -> str | None:
    if group.name == "node":
        manifest = group.folder / "node_modules" / package / "package.json"
        return str(json.loads(manifest.read_text("utf-8"))["version"]) if manifest.exists() else None
    folder = environment() / group.name
    path = None if group.name == "ours" else [str(site) for site in folder.glob("lib/python*/site-packages")]
    found = distributions(name=package) if path is None else distributions(name=package, path=path)
    return next((distribution.version for distribution in found), None)


@pytest.mark.parametrize(("group", "package", "version", "checks"), ROWS)
def test_the_version_told_is_the_one_installed(group: str, package: str, version: str, checks: str) -> None:
    if not environment().joinpath(".pins.sha256").exists():
        pytest.skip("no clients here; install them with: make clients")
    assert _installed(GROUPS[group], package) == version


def test_every_client_has_a_row_and_every_check_is_counted() -> None:
    told = {(group, package) for group, package, _, _ in ROWS}
    assert told == {(group.name, package) for group in GROUPS.values() for package in group.packages}
    for group in GROUPS.values():
        told_checks = [int(checks) for name, _, _, checks in ROWS if name == group.name and checks != "–"]
        assert sum(told_checks) == len(list(group.checks())), group.name


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((HERE / "node" / "package-lock.json").read_text("utf-8"))
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]
    assert all("integrity" in package for name, package in lock["packages"].items() if name)
