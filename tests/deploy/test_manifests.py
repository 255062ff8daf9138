"""The manifests as they are written, which needs no kubectl: objects that Kubernetes' schemas take, folders that are complete."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest

from tests.deploy.files import KUBERNETES, documents

WRITTEN = sorted((KUBERNETES / "base").glob("*.yaml")) + sorted((KUBERNETES / "worker").glob("*.yaml"))
FOLDERS = sorted(path.parent for path in KUBERNETES.rglob("kustomization.yaml"))


def named(path: Path) -> str:
    return str(path.relative_to(KUBERNETES))


@pytest.mark.parametrize("path", [path for path in WRITTEN if path.name != "kustomization.yaml"], ids=named)
def test_kubernetes_schemas_take_what_is_written(path: Path) -> None:
    found = documents(path.read_text("utf-8"))
    assert found
    for document in found:
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=named)
def test_a_kustomization_names_what_is_there_and_leaves_nothing_out(folder: Path) -> None:
    [file] = documents((folder / "kustomization.yaml").read_text("utf-8"))
    generated = [name for generator in file.get("configMapGenerator", ()) for name in generator["files"]]
    used = [(folder / name).resolve() for name in (*file["resources"], *file.get("components", ()), *generated)]
    assert not [path for path in used if not path.exists()]
    beside = {path for path in folder.iterdir() if path.name != "kustomization.yaml"}
    assert {path.resolve() for path in beside} <= set(used)
