"""The results of routing tests in the XML that JUnit's report has become to build servers: what Jenkins' schema junit-10 has."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from router.explaining.explanation import line_of
from router.routetests import Result


def junit_xml(name: str, results: Sequence[Result], seconds: float) -> str:
    """A document with one suite, called as the file of the tests is. What XML cannot carry is written out as an escape."""
    failed = sum(not result.passed for result in results)
    counts = {"tests": str(len(results)), "failures": str(failed), "errors": "0"}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": line_of(name), **counts, "time": f"{seconds:.3f}"})
    for result in results:
        _add_case(suite, line_of(name), result)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _add_case(suite: ElementTree.Element, name: str, result: Result) -> None:
    seconds = result.decision.seconds if result.decision else 0.0
    named = {"classname": name, "name": line_of(result.name), "time": f"{seconds:.3f}"}
    case = ElementTree.SubElement(suite, "testcase", named)
    if not result.passed:
        failure = ElementTree.SubElement(case, "failure", {"message": line_of(result.why), "type": "routing"})
        place, prompt = f"{name}:{result.test.line}", line_of(result.test.query.text)
        failure.text = f"{place}: {line_of(result.why)}\nprompt: {prompt}"
