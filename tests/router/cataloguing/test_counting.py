from __future__ import annotations

from pathlib import Path

import pytest

from router.cataloguing.catalog import load_catalog
from router.cataloguing.counting import counts, markdown
from tests.fakes.catalogs import PAGE, catalog, model

ROOT = Path(__file__).parents[3]


def test_models_are_counted_by_family_and_openness() -> None:
    found = counts(catalog(a=model(), b=model(family="Yi", openness={"weights": {"open": "no", "source": PAGE}})))
    none = {"full": 0, "partial": 0, "weights": 0, "unknown": 0}
    assert found["families"] == {
        "Llama": none | {"models": 1, "partial": 1},
        "Yi": none | {"models": 1, "unknown": 1},
    }
    assert found["all"]["all"] == none | {"models": 2, "partial": 1, "unknown": 1}
    assert found["licences"]["permissive"]["models"] == found["tasks"]["code"]["models"] == 2
    assert found["tasks"]["math"]["models"] == 0
    assert found["criteria"]["weights"] == {"yes": 1, "no": 1}
    assert found["criteria"]["training_metrics"] == {"unknown": 2}


def test_every_model_is_counted_once() -> None:
    models = load_catalog()
    found = counts(models)
    assert sum(row["models"] for row in found["families"].values()) == len(models.models)
    assert found["all"]["all"]["models"] == len(models.models)
    assert all(sum(row.values()) == len(models.models) for row in found["criteria"].values())


@pytest.mark.parametrize("table", markdown(load_catalog()).strip().split("\n\n"))
def test_the_page_about_the_catalogue_has_its_counts(table: str) -> None:
    assert table in (ROOT / "docs" / "catalog.md").read_text("utf-8"), (
        "write docs/catalog.md anew: moe-gateway catalog count"
    )
