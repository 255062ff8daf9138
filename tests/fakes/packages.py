"""Packages that look installed: a module and a dist-info folder on a path of their own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Install = Callable[[str, str, Mapping[str, str], Mapping[str, str]], None]


def package(site: Path, name: str, group: str, points: Mapping[str, str], files: Mapping[str, str]) -> None:
    """Write a package into the folder `site` as an installer would: `files`, and the entry points of `group`."""
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    lines = [f"[{group}]", *(f"{point} = {value}" for point, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")
    for file, text in files.items():
        (site / file).write_text(text, "utf-8")


def installer(parent: Path) -> Iterator[Install]:
    """install(name, group, entry points, files) puts a package where Python finds it, until the generator ends."""
    path = [*sys.path]

    def install(name: str, group: str, points: Mapping[str, str], files: Mapping[str, str]) -> None:
        package(parent / name, name, group, points, files)
        sys.path.insert(0, str(parent / name))
        importlib.invalidate_caches()

    yield install
    sys.path[:] = path
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(str(parent)):
            del sys.modules[name]
    importlib.invalidate_caches()
