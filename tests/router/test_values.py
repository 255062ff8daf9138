"""Values by themselves; test_experts.py has how they are told in a file, each with its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from router import language
from router.values import LANGUAGES, MEANT, UNITS, HttpUrl, Language, Seconds, Secret, Usd

SECONDS, URL, SECRET = TypeAdapter(Seconds), TypeAdapter(HttpUrl), TypeAdapter(Secret)
LANGUAGE, USD = TypeAdapter(Language), TypeAdapter(Usd)
ADAPTERS = [SECONDS, URL, SECRET, LANGUAGE, USD]


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
@settings(deadline=None, max_examples=50)
def test_a_duration_is_a_number_of_its_units(count: int, unit: str, space: str) -> None:
    assert SECONDS.validate_python(f"{count}{space}{unit}") == pytest.approx(count * UNITS[unit])


@given(st.floats(1e-3, 1e9))
@settings(deadline=None, max_examples=50)
def test_a_duration_without_a_unit_is_in_seconds(seconds: float) -> None:
    assert SECONDS.validate_python(seconds) == seconds


@given(st.from_regex(r"[a-z]{1,10}(\.[a-z]{1,10}){0,3}", fullmatch=True), st.integers(1, 65535), st.integers(0, 3))
@settings(deadline=None, max_examples=50)
def test_an_address_is_kept_but_for_the_slashes_at_its_end(host: str, port: int, slashes: int) -> None:
    assert URL.validate_python(f"http://{host}:{port}/v1" + "/" * slashes) == f"http://{host}:{port}/v1"


@given(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=8, max_size=40).map("sk-{}".format))
@settings(deadline=None, max_examples=50)
def test_a_secret_comes_from_the_environment_and_one_that_is_written_down_is_never_repeated(secret: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALUES_KEY", f"{secret}\n")
        assert SECRET.validate_python("${VALUES_KEY}") == secret
    with pytest.raises(ValidationError) as caught:
        SECRET.validate_python(secret)
    assert secret not in caught.value.errors(include_input=False)[0]["msg"]


@given(st.text(max_size=4) | st.sampled_from(sorted(LANGUAGES)))
@settings(deadline=None, max_examples=50)
def test_a_language_is_one_of_those_that_the_router_can_tell(said: str) -> None:
    try:
        assert LANGUAGE.validate_python(said) == said
        assert said in LANGUAGES
    except ValidationError:
        assert said not in LANGUAGES


def test_the_languages_are_those_that_are_told_by_a_script_or_by_the_model() -> None:
    labels, _ = language._model().predict("hello", 1000, -1.0)
    codes = {label.removeprefix("__label__") for label in labels}
    codes = {language.WRITTEN_LIKE.get(code, code) for code in codes}
    by_script = {"ja", *language.LANGUAGE_OF_SCRIPT.values()}
    known = {code for code in codes if len(code) == 2} | by_script
    assert known - {"yi"} == LANGUAGES  # whose letters are taken for Hebrew
    assert language.language_of("די קאַץ זיצט אויף דעם טיש און קוקט אויפֿן פֿענצטער") == "he"
    assert language.READABLE | language.SISTERS <= LANGUAGES


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *(("jp", "ja"), ("JA", "ja"), ("ja-JP", "ja"), ("zh_CN", "zh"), ("cn", "zh"), ("kr", "ko"), ("jpn", "ja")),
        *(("Japanese", "ja"), ("Portugese", "pt"), (" de ", "de"), ("english", "en"), ("iw", "he")),
    ],
)
def test_a_language_that_is_written_otherwise_is_told_with_the_code_that_was_meant(said: str, meant: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LANGUAGE.validate_python(said)
    assert f"{said!r} is not a language that the router can tell; did you mean '{meant}'?" in str(caught.value)


@pytest.mark.parametrize("said", ["", "qq", "tlh", "klingon", "xx-YY", "x" * 400])
def test_where_no_language_is_near_the_form_is_told(said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LANGUAGE.validate_python(said)
    (problem,) = caught.value.errors(include_input=False)
    assert "write its two letters in ISO 639-1, such as ja" in problem["msg"]
    assert len(problem["msg"]) < 200


def test_everything_that_may_be_meant_is_a_language() -> None:
    assert set(MEANT.values()) <= LANGUAGES
    assert LANGUAGES.isdisjoint(MEANT)


@pytest.mark.parametrize("adapter", ADAPTERS)
@given(said=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2))
@settings(deadline=None, max_examples=50)
def test_whatever_is_said_is_read_or_refused(adapter: TypeAdapter[object], said: object) -> None:
    try:
        adapter.validate_python(said)
    except ValidationError as error:
        problems = error.errors()
    else:
        problems = []
    assert len(problems) <= 1
