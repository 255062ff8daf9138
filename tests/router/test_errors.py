from __future__ import annotations

import inspect
import re

import pytest

from router import errors
from router.errors import ConfigError, MissingExtraError, NoExpertError, Problem, RouterError

TREE = {
    name: error
    for name, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, Exception) and error.__module__ == errors.__name__
}


def test_every_error_of_the_router_is_a_router_error() -> None:
    assert all(issubclass(error, RouterError) for error in TREE.values())


def test_the_tree_that_is_drawn_on_top_is_the_tree_that_there_is() -> None:
    assert errors.__doc__ is not None
    assert set(re.findall(r"[A-Z]\w+Error\b", errors.__doc__)) == set(TREE)


def test_a_problem_says_file_line_column_and_key_first() -> None:
    assert (
        str(Problem("e.yaml", 3, 7, "router.fallback", "no expert 'x'")) == "e.yaml:3:7: router.fallback: no expert 'x'"
    )
    assert str(Problem("e.yaml", 1, 1, "", "not valid YAML")) == "e.yaml:1:1: not valid YAML"


def test_a_config_error_says_every_problem_in_the_order_of_the_lines() -> None:
    problems = [Problem("e", line, column, "k", "m") for line, column in [(9, 1), (2, 5), (2, 1), (10, 1)]]
    error = ConfigError(problems)
    assert [(p.line, p.column) for p in error.problems] == [(2, 1), (2, 5), (9, 1), (10, 1)]
    assert str(error) == "\n".join(str(problem) for problem in error.problems)


def test_an_error_for_want_of_an_expert_says_what_is_lacking() -> None:
    error = NoExpertError("nobody can", "vision")
    assert (str(error), error.lacking) == ("nobody can", "vision")


@pytest.mark.parametrize("extra", ["train", "embedded"])
def test_a_missing_extra_names_the_command_that_installs_it(extra: str) -> None:
    assert str(MissingExtraError("some-package", extra)) == (
        f"some-package is not installed; run: pip install 'moe-gateway[{extra}]'"
    )
