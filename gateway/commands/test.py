"""moe-gateway test."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, State, provisioned, read_config
from gateway.console import err, fail, print_json
from router.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router.routetests import Result, RouteTests

SHOWN_PROMPT = 300  # characters of one in --json


def test(
    file: Annotated[Path | None, typer.Argument(help="The tests; routes.test.yaml beside the experts file.")] = None,
    config: Config = DEFAULT_CONFIG,
    state: State = None,
    tags: Annotated[str, typer.Option(help="Only tests with one of these tags, parted by commas.")] = "",
    junit: Annotated[Path | None, typer.Option(help="Write the results to this file too, as JUnit's XML.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the tests that pass as well.")] = False,
    as_json: Json = False,
) -> None:
    """Say whether prompts go where routes.test.yaml wants them: no expert is asked, all count as up.

    Example: moe-gateway test --config experts.yaml

    Example: moe-gateway test routes.test.yaml --tags smoke --junit routes.xml
    """
    experts = read_config(config)
    try:
        tests = _tests(file, config, tags)
        tests.check(experts)
    except ConfigError as error:
        _say_wrong(error, as_json)
        raise typer.Exit(1) from None
    router = provisioned(config, state)
    from router.routetests import run_route_tests

    router.warm()
    started = time.perf_counter()
    results = run_route_tests(tests, router)
    seconds = time.perf_counter() - started
    if junit is not None:
        from gateway.commands.junit import junit_xml
        from gateway.replacing import replace_file

        replace_file(junit, junit_xml(tests.file.name, results, seconds))
    if as_json:
        print_json(_described(tests.file.name, results, seconds))
    else:
        from gateway.commands.testscreen import print_results

        print_results(tests.file.name, results, seconds, verbose)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _tests(file: Path | None, config: Path, tags: str) -> RouteTests:
    """Raises ConfigError; leaves with a status where there are none, or none with such a tag."""
    from router.routetests import beside, read_route_tests
    from router.validation import nearest

    path = file or beside(config)
    if path is None:
        fail(
            f"there is no routes.test.yaml beside {config}; write one (docs/routing-tests.md), or name the file of tests"
        )
    tests = read_route_tests(path)
    wanted = [tag for tag in map(str.strip, tags.split(",")) if tag]
    for tag in wanted:
        if tag not in tests.tags:
            hint = nearest(tag, tests.tags) if tests.tags else "; no test has one"
            raise typer.BadParameter(f"no test has the tag {tag!r}{hint}", param_hint="--tags")
    return tests.tagged(wanted) if wanted else tests


def _say_wrong(error: ConfigError, as_json: bool) -> None:
    """As `check` says what is wrong in an experts file."""
    from gateway.checking.excerpt import WIDTH
    from gateway.checking.findings import errors
    from gateway.checking.formats import pictured

    found = errors(error.problems)
    if as_json:
        print_json({"ok": False, "problems": [finding.described() for finding in found]})
        return
    width = max(40, err.width - 10) if err.is_terminal else WIDTH
    for picture in pictured(found, {name: text.splitlines() for name, text in error.texts.items()}, width):
        err.print(picture, highlight=False, soft_wrap=True)


def _described(name: str, results: Sequence[Result], seconds: float) -> dict[str, Any]:
    passed = sum(result.passed for result in results)
    return {
        "ok": passed == len(results),
        "file": name,
        "passed": passed,
        "failed": len(results) - passed,
        "seconds": round(seconds, 3),
        "tests": [
            {
                "name": result.name,
                "line": result.test.line,
                "tags": list(result.test.tags),
                "prompt": result.test.query.text[:SHOWN_PROMPT],
                "passed": result.passed,
                "wrong": list(result.wrong),
                "decision": result.decision.described() if result.decision else None,
            }
            for result in results
        ],
    }
