from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from router.errors import ExtensionError
from router.extensions import Registry
from tests.fakes.packages import Install

GROUP = "tests.greetings"
Greeting = Callable[[], str]
HELLO = 'imported = print("imported") or 1\n\ndef greet():\n    return "hello"\n'


def registry(built_in: dict[str, Greeting] | None = None) -> Registry[Greeting]:
    return Registry(GROUP, built_in or {}, prefix="say:")


def test_what_is_built_in_comes_first_and_needs_no_package() -> None:
    greetings = registry({"say:hi": lambda: "hi"})
    assert (list(greetings), len(greetings), "say:hi" in greetings) == (["say:hi"], 1, True)
    assert greetings["say:hi"]() == "hi"


def test_what_an_installed_package_adds_is_there_under_its_name(install: Install) -> None:
    install("polite", GROUP, {"hello": "polite_greetings:greet"}, {"polite_greetings.py": HELLO})
    greetings = registry({"say:hi": lambda: "hi"})
    assert list(greetings) == ["say:hi", "say:hello"]
    assert greetings["say:hello"]() == "hello"


def test_another_group_is_another_matter(install: Install) -> None:
    install("polite", "tests.farewells", {"hello": "polite_greetings:greet"}, {"polite_greetings.py": HELLO})
    assert "say:hello" not in registry()


def test_a_package_is_imported_once_and_not_before_it_is_used(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("polite", GROUP, {"hello": "polite_greetings:greet"}, {"polite_greetings.py": HELLO})
    greetings = registry()
    assert "say:hello" in greetings
    assert capsys.readouterr().out == ""
    assert greetings["say:hello"] is greetings["say:hello"]
    assert capsys.readouterr().out == "imported\n"


def test_a_name_that_nobody_adds_is_not_there(install: Install) -> None:
    greetings = registry()
    assert "say:hello" not in greetings
    with pytest.raises(KeyError):
        greetings["say:hello"]


def test_a_built_in_name_cannot_be_taken(install: Install) -> None:
    install("rude", GROUP, {"hi": "rude_greetings:greet"}, {"rude_greetings.py": HELLO})
    greetings = registry({"say:hi": lambda: "hi"})
    assert greetings["say:hi"]() == "hi"
    assert list(greetings) == ["say:hi"]


@pytest.mark.parametrize("name", ["Hello", "hel lo", "-hello", "h" * 33])
def test_a_name_that_no_label_could_carry_is_passed_over(install: Install, name: str) -> None:
    install("odd", GROUP, {name: "odd_greetings:greet"}, {"odd_greetings.py": HELLO})
    assert list(registry()) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def other(): ...", "AttributeError"),
        ("greet = 1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("greet = 7", "is not callable"),
    ],
)
def test_what_cannot_be_loaded_fails_alike_every_time_and_names_its_package(
    install: Install, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    install("broken", GROUP, {"hello": "broken_greetings:greet"}, {"broken_greetings.py": f"print('tried')\n{text}\n"})
    greetings = registry()
    for _ in range(3):
        with pytest.raises(
            ExtensionError, match=r"say:hello of the package broken \(broken_greetings:greet\)"
        ) as caught:
            greetings["say:hello"]
        assert says in str(caught.value)
    assert capsys.readouterr().out == "tried\n"


def test_a_name_that_two_packages_add_belongs_to_neither(install: Install) -> None:
    install("polite", GROUP, {"hello": "polite_greetings:greet"}, {"polite_greetings.py": HELLO})
    install("kind", GROUP, {"hello": "kind_greetings:greet"}, {"kind_greetings.py": HELLO})
    with pytest.raises(ExtensionError, match=r"kind \(.*\) and by polite \(.*\); uninstall one"):
        registry()["say:hello"]


def test_what_is_added_may_be_adapted(install: Install) -> None:
    install("polite", GROUP, {"hello": "polite_greetings:greet"}, {"polite_greetings.py": HELLO})
    louder: Registry[Greeting] = Registry(GROUP, {}, adapt=lambda name, greet: lambda: f"{name}: {greet().upper()}")
    assert louder["hello"]() == "hello: HELLO"


def test_what_is_lent_is_there_until_the_block_ends() -> None:
    greetings = registry({"say:hi": lambda: "hi"})
    with suppress(ZeroDivisionError), greetings.lending("say:hello", lambda: "hello"):
        assert "say:hello" in greetings
        assert list(greetings) == ["say:hi", "say:hello"]
        assert greetings["say:hello"]() == "hello"
        raise ZeroDivisionError
    assert "say:hello" not in greetings
    assert list(greetings) == ["say:hi"]


def test_what_is_lent_in_place_of_something_gives_its_place_back() -> None:
    greetings = registry({"say:hi": lambda: "hi"})
    with greetings.lending("say:hi", lambda: "ho"):
        assert greetings["say:hi"]() == "ho"
        with greetings.lending("say:hi", lambda: "hm"):
            assert greetings["say:hi"]() == "hm"
        assert greetings["say:hi"]() == "ho"
    assert greetings["say:hi"]() == "hi"


def test_what_is_added_is_known_by_its_package_and_version(install: Install) -> None:
    install("acme", GROUP, {"polite": "acme:greet", "blunt": "acme:greet"}, {"acme.py": HELLO})
    found = registry({"say:blunt": lambda: "what?"})
    assert found.package("say:polite") == "acme 1.0"
    assert (found.package("say:blunt"), found.package("say:nobody")) == (None, None)
