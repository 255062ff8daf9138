"""Encoders that other installed packages add: the folder that stands for one in a trained router.

The package carries whatever the encoder needs. The folder holds encoder.json alone: what the encoder is called, and the package
with its version, by which an encoder of today is told from the one that a router was trained with.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from router.encoder import ENCODERS
from router.errors import ExtensionError

ABOUT = "encoder.json"


def installed_name(name: str) -> str | None:
    """What the folder of the encoder `name` is called; None where no package adds it."""
    about = _about(name)
    return about and f"{name}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"


def installed_encoder(name: str, into: Path) -> Path | None:
    """That folder, made below `into` where it is not there yet; None where no package adds the encoder.

    Raises ExtensionError where it cannot be loaded, or wants files in the folder.
    """
    about, folder_name = _about(name), installed_name(name)
    if about is None or folder_name is None:
        return None
    if wanted := set(getattr(ENCODERS[name], "FILES", ())) - {ABOUT}:
        files = ", ".join(sorted(wanted))
        raise ExtensionError(f"the encoder {name} asks for {files}; a package carries the files of its encoder itself")
    folder = into / folder_name
    folder.mkdir(parents=True, exist_ok=True)
    scratch = into / f".{folder_name}.{os.getpid()}"
    scratch.write_text(about, "utf-8")
    scratch.replace(folder / ABOUT)
    return folder


def _about(name: str) -> str | None:
    package = ENCODERS.package(name)
    return package and json.dumps({"name": name, "kind": name, "package": package}, indent=2) + "\n"
