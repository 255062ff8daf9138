"""What build servers read: held to the elements and attributes that Jenkins' schema junit-10 knows."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.commands.junit import junit_xml
from router.decision import Query
from router.routetests import Result, RouteTest
from tests.fakes.memory import decision

# Of each element: the attributes that it must have, those that it may have, and the elements that may stand in it.
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"}, {"time", "skipped", "timestamp", "hostname", "file"}, {"testcase"}
    ),
    "testcase": ({"name"}, {"time", "classname"}, {"failure"}),
    "failure": (set(), {"type", "message"}, set()),
}  # fmt: skip
TIME = re.compile(r"[0-9]{1,3}(\.[0-9]{0,3})?")  # of a suite


def held_to_the_schema(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text.encode("utf-8"))  # noqa: S314 - made here
    assert root.tag == "testsuites"
    for element in root.iter():
        must, may, inside = SCHEMA[element.tag]
        assert must <= set(element.attrib) <= must | may
        assert {child.tag for child in element} <= inside
        if element.tag == "testsuite":
            assert TIME.fullmatch(element.attrib["time"])
    return root


def result(name: str = "a", prompt: str = "b", *wrong: str, line: int = 3) -> Result:
    return Result(RouteTest(name, line, 0, Query(prompt)), wrong, decision("coder"))


def test_every_test_is_a_case_and_each_that_failed_has_why_and_where() -> None:
    results = [result("one"), result("two", "Sort it.", "went to coder, not to general", line=7), result("three")]
    suite = held_to_the_schema(junit_xml("routes.test.yaml", results, 0.25)).find("testsuite")
    assert suite is not None
    assert suite.attrib == {
        "name": "routes.test.yaml", "tests": "3", "failures": "1", "errors": "0", "time": "0.250",
    }  # fmt: skip
    first, second, _ = suite.findall("testcase")
    assert (first.attrib, len(first)) == (
        {"classname": "routes.test.yaml", "name": "one", "time": "0.001"}, 0
    )  # fmt: skip
    (failure,) = second
    assert failure.attrib["message"].startswith("went to coder, not to general (best; general 0.900")
    assert (failure.text or "").startswith("routes.test.yaml:7: went to coder, not to general")
    assert "prompt: Sort it." in (failure.text or "")


@pytest.mark.parametrize(
    "text", ["\x00\x1b[31m\x7f", "\ud800", "\ufffe\uffff", "<&>\"']]>", "a\r\nb\tc", "😀 ünï 漢字"]
)
def test_what_xml_cannot_carry_is_written_out(text: str) -> None:
    root = held_to_the_schema(junit_xml(text, [result(text, text, text)], 0.0))
    said = "".join(root.itertext()) + "".join(value for element in root.iter() for value in element.attrib.values())
    assert all(character.isprintable() or character == "\n" for character in said)


@settings(max_examples=80)
@given(st.text(st.characters(codec=None), max_size=30), st.text(st.characters(codec=None), max_size=30))
def test_whatever_stands_in_a_name_or_a_prompt_it_is_xml(name: str, prompt: str) -> None:
    held_to_the_schema(junit_xml(name, [result(name, prompt, prompt), result(prompt, name)], 0.0))
