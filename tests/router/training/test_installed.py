"""Parts of the router that another installed package adds: those of docs/extend/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from router.encoder import ENCODERS
from router.errors import ExtensionError
from router.training.installed import installed_encoder, installed_name
from tests.fakes.packages import package

ROOT = Path(__file__).parents[3]
PACKAGES = ROOT / "tests" / "docs" / "packages"
OF = {"encoders": "acme_encoder", "heads": "acme_head", "calibrators": "acme_head"}
SERVED = """
import json, sys
from pathlib import Path
import router.dataset
from router.experts import parse_experts
from router.training.provision import load_or_train
from tests.fakes.corpora import small_corpus

rows = router.dataset.load_corpus = small_corpus
file = parse_experts(sys.argv[2])
told = []
for _ in range(2):
    steps = []
    made = load_or_train(file, Path(sys.argv[1]), lambda step, *_: steps.append(step))
    (stage,) = made.artifact.stages
    found = [scores.domain for scores in made.score_many([row.text for row in rows()])]
    right = sum(domain == row.domain for domain, row in zip(found, rows(), strict=True)) / len(found)
    about = made.artifact.manifest.stages[0]
    told.append({"parts": [about.encoder, about.head, about.calibrator], "folder": about.encoder_folder,
                 "right": right, "trained": bool(steps), "class": type(getattr(stage, sys.argv[3])).__name__})
print(json.dumps(told))
"""


def install_part(site: Path, registry: str, old: str = "", new: str = "") -> None:
    """The package with its part of one registry alone; `new` in the place of `old` in its code."""
    folder = PACKAGES / OF[registry]
    code = (folder / f"{folder.name}.py").read_text("utf-8")
    about = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    points = about["project"]["entry-points"][f"moe_gateway.{registry}"]
    assert old in code
    package(site, "acme-parts", f"moe_gateway.{registry}", points, {f"{folder.name}.py": code.replace(old, new)})


def served(site: Path, state: Path, options: str, part: str) -> list[dict[str, Any]]:
    """What two starts of a gateway came to whose experts.yaml has `options` under router:, in a process with `site`."""
    experts = "experts: {general: {model: m, domains: [general], upstream: {embedded: smollm2}}}"
    text = f"version: 1\nrouter: {options}\n{experts}\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(site)))}
    done = subprocess.run(
        [sys.executable, "-c", SERVED, str(state), text, part],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(done.stderr)
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize(
    ("registry", "option", "parts", "kind"),
    [
        ("encoders", "encoder: acme-words", ["acme-words", "linear", "temperature"], "WordEncoder"),
        ("heads", "encoder: moe-static, head: acme-centroid", ["moe-static", "acme-centroid", "temperature"], "CentroidHead"),
        ("calibrators", "encoder: moe-static, calibrator: acme-scale", ["moe-static", "linear", "acme-scale"], "Scale"),
    ],
)  # fmt: skip
def test_a_part_that_a_package_adds_is_trained_with_kept_and_served(
    tmp_path: Path, registry: str, option: str, parts: list[str], kind: str
) -> None:
    install_part(tmp_path / "site", registry)
    first, second = served(
        tmp_path / "site", tmp_path / "state", f"{{{option}, static: ''}}", registry.removesuffix("s")
    )
    assert (first["parts"], first["class"], first["trained"]) == (parts, kind, True)
    assert first["right"] > 0.9
    assert second == {**first, "trained": False}


def test_a_router_is_made_anew_when_the_package_of_its_encoder_has_another_version(tmp_path: Path) -> None:
    site, state = tmp_path / "site", tmp_path / "state"
    install_part(site, "encoders")
    old, _ = served(site, state, "{encoder: acme-words, static: ''}", "encoder")
    metadata = next(site.glob("*.dist-info")) / "METADATA"
    metadata.write_text(metadata.read_text("utf-8").replace("Version: 1.0", "Version: 1.1"), "utf-8")
    new, again = served(site, state, "{encoder: acme-words, static: ''}", "encoder")
    assert (new["trained"], again["trained"]) == (True, False)
    assert new["folder"] != old["folder"]
    assert [path.name for path in (state / "router").glob("acme-words-*")] == [new["folder"]]


@pytest.mark.parametrize(
    ("registry", "option", "old", "new", "says"),
    [
        ("encoders", "encoder: acme-words", '"acme-words"', '"words"', "the encoder 'acme-words' calls itself 'words'"),
        ("heads", "encoder: moe-static, head: acme-centroid", '"acme-centroid"', '"linear"', "the head 'acme-centroid' calls"),
        ("calibrators", "encoder: moe-static, calibrator: acme-scale", '"acme-scale"', '"x"', "the calibrator 'acme-scale' calls"),
        ("encoders", "encoder: acme-words", "dimensions = 256", "dimensions = 256\n    FILES = ('a.bin', 'encoder.json')",
         "the encoder acme-words asks for a.bin; a package carries the files"),
        ("encoders", "encoder: acme-words", "= vectors /", "= vectors[:, 1:] /", "made vectors of shape (59, 255)"),
    ],
)  # fmt: skip
def test_a_part_that_is_not_what_it_has_to_be_is_refused_by_name(
    tmp_path: Path, registry: str, option: str, old: str, new: str, says: str
) -> None:
    install_part(tmp_path / "site", registry, old, new)
    with pytest.raises(AssertionError) as caught:
        served(tmp_path / "site", tmp_path / "state", f"{{{option}, static: ''}}", registry.removesuffix("s"))
    error = str(caught.value).strip().splitlines()[-1]
    assert error.startswith(ExtensionError.__module__ + ".ExtensionError")
    assert says in error


def test_an_encoder_that_no_package_adds_has_no_folder(tmp_path: Path) -> None:
    for name in ("static", "transformer", "nobody"):
        assert (installed_name(name), installed_encoder(name, tmp_path)) == (None, None)
    with ENCODERS.lending("lent", lambda folder: ENCODERS["static"](folder)):
        assert installed_name("lent") is None
    assert list(tmp_path.iterdir()) == []
