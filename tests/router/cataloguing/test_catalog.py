from __future__ import annotations

import pytest

from router.cataloguing.catalog import PACKAGED, load_catalog, parse_catalog
from router.cataloguing.lint import lint
from router.errors import CatalogError, ConfigError
from tests.fakes.catalogs import catalog, entry, model, text_of

# What the catalogue sets out to have, by a part of a hub id.
WANTED = (
    "Llama-2", "ELYZA", "Pro-8B", "Mistral-7B", "Mixtral-8x7B", "BioMistral", "OpenMath-Mistral", "falcon-7b", "falcon-40b",
    "OpenAssistant", "gpt4all-falcon", "OLMo-7B", "OLMo-2", "Olmo-3", "Qwen2.5-Coder", "Qwen3-Coder", "Qwen2.5-Math", "DeepSeek-V3",
    "DeepSeek-R1", "Llama-3.1", "Llama-3.3", "Llama-4", "gemma-3", "medgemma", "Codestral", "Magistral", "phi-4", "granite",
    "starcoder2", "gpt-oss", "OpenBioLLM", "meditron",
)  # fmt: skip


def test_the_packaged_catalogue_is_without_fault() -> None:
    assert lint(PACKAGED).models == load_catalog().models


def test_it_has_what_people_deploy() -> None:
    models = load_catalog().models
    assert len(models) >= 40
    names = " ".join(one.name.lower() for one in models.values())
    assert [wanted for wanted in WANTED if wanted.lower() not in names] == []


def test_it_is_read_once() -> None:
    assert load_catalog() is load_catalog()


@pytest.mark.parametrize("said", ["good-7b", "GOOD-7B", " good-7b ", "maker/good-7b", "Maker/Good-7B", "Good-7B"])
def test_a_model_is_found_by_its_key_and_its_hub_id_in_any_case(said: str) -> None:
    assert catalog(good_7b=model(name="Maker/Good-7B"), other=model(name="Else/Other")).find(said) == "good-7b"


def test_a_bare_name_that_two_makers_use_is_none() -> None:
    models = catalog(one=model(name="A/Same"), two=model(name="B/Same"))
    assert models.find("b/same") == "two"
    with pytest.raises(CatalogError):
        models.find("same")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("good", "did you mean good-7b?"),
        ("goood-7b", "did you mean good-7b?"),
        ("Maker/Good-8B", "did you mean good-7b?"),
        ("zzzzzz", "moe-gateway catalog list has them all"),
        ("", "moe-gateway catalog list has them all"),
        ("x" * 10_000, "moe-gateway catalog list has them all"),
    ],
)
def test_a_model_that_is_not_there_is_told_with_the_nearest(said: str, told: str) -> None:
    with pytest.raises(CatalogError, match="the catalogue has no model") as error:
        catalog(good_7b=model(name="Maker/Good-7B")).find(said)
    assert str(error.value).endswith(told)
    assert len(str(error.value)) < 200


TEXT = """\
models:
  good-7b:
    name: Maker/Good-7B
    maker: Maker
    famly: Llama
    tasks: [code, cooking]
    parameters: {total: big}
  BAD:
    name: nothing
    maker: Maker
    family: Llama
    tasks: [code]
    tasks: [math]
others: 1
"""


def test_every_error_of_form_is_told_at_once_with_line_and_key() -> None:
    with pytest.raises(ConfigError) as error:
        parse_catalog(TEXT, "c.yaml")
    told = str(error.value).splitlines()
    for start in (
        "c.yaml:5:5: models.good-7b.famly: unknown key; did you mean 'family'?",
        "c.yaml:6:19: models.good-7b.tasks.1: 'cooking' means nothing here; did you mean 'reasoning'?",
        "c.yaml:7:25: models.good-7b.parameters.total: input should be a valid number",
        "c.yaml:8:3: models.BAD: a key is 1 to 64 of a-z",
        "c.yaml:9:11: models.BAD.name: string should match",
        "c.yaml:13:5: models.BAD.tasks: stands twice",
        "c.yaml:14:1: others: unknown key",
    ):
        assert sum(line.startswith(start) for line in told) == 1, start
    assert len(told) == 7  # the family is not missing as well


@pytest.mark.parametrize("text", ["", "models:", "models: []", "models: {}", "[1]", "x", "models: {a: }"])
def test_what_holds_no_models_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_catalog(text)


def test_an_unknown_key_inside_an_entry_is_told_as_the_file_spells_it() -> None:
    changed = entry()
    changed["architecture"]["clas"] = changed["architecture"].pop("class")
    with pytest.raises(ConfigError, match="unknown key; did you mean 'class'"):
        parse_catalog(text_of(a=changed))
