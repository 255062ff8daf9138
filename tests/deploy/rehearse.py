"""Runs the commands of deploy/Dockerfile's first stage in a temporary folder, without Docker, and looks at what comes out.

python -m tests.deploy.rehearse: exit status 1 where a command fails, torch came along, or the gateway that was installed does not
work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.deploy.files import EXPERTS, ROOT, dockerfile

INSTALLED = "/opt/moe-gateway"


def stage() -> list[tuple[str, str]]:
    """The instructions before the second FROM."""
    second = [i for i, (word, _) in enumerate(dockerfile()) if word == "FROM"][1]
    return dockerfile()[:second]


def build(folder: Path) -> Path:
    """What the first stage makes: where the gateway is installed. Raises CalledProcessError."""
    source, installed = folder / "source", folder / "installed"
    source.mkdir()
    environment = dict(os.environ)
    for word, rest in stage():
        if word == "ENV":
            environment |= dict(pair.split("=", 1) for pair in rest.split())
        elif word == "COPY":
            *names, target = rest.split()
            for name in names:
                _copy(ROOT / name, source / (target if len(names) == 1 and target != "./" else name))
        elif word == "RUN":
            print(f"+ {rest[:120]}", flush=True)
            command = rest.replace(INSTALLED, str(installed)).replace("python3 ", f"{sys.executable} ")
            subprocess.run(["/bin/sh", "-ec", command], cwd=source, env=environment, check=True)
    return installed


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def look(installed: Path) -> list[str]:
    """What is wrong with it."""
    python = installed / "bin" / "python"
    size = sum(path.stat().st_size for path in installed.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"{size / 1e6:.0f} MB installed, beside the base image's")
    unwanted = [
        name for name in ("torch", "pip") if _run(installed, str(python), "-c", f"import {name}").returncode == 0
    ]
    wrong = [f"{name} is installed" for name in unwanted]
    command, experts = str(installed / "bin" / "moe-gateway"), str(EXPERTS["gpu"])
    if _run(installed, command, "check", experts).returncode != 0:
        wrong.append("moe-gateway check does not take the experts of production")
    state = str(installed / "state")
    told = _run(
        installed, command, "route", "--config", experts, "--state", state, "Why does my Python loop never end?"
    )
    print(told.stdout.strip())
    if "coder" not in told.stdout:
        wrong.append(f"the router that was installed does not route: {told.stderr[-300:]}")
    return wrong


def _run(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wrong = look(build(Path(folder)))
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
