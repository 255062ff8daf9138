"""Every command on the pages is run, and what is no command is what it says that it is."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.exceptions import TyperException

from tests.deploy.test_runbooks import assert_parses
from tests.docs import declared
from tests.docs.blocks import Block, blocks, inline, script
from tests.docs.pages import ROOT, name_of, pages
from tests.docs.stage import INSTEAD, Played, Stage, stage

LANGUAGES = {"sh", "text", "yaml", "json", "toml", "python", "promql"}
RUN = [page for page in pages() if script(page.read_text("utf-8"))]
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage")) as made:
        yield made


@pytest.fixture(scope="module")
def played(there: Stage) -> dict[str, Played]:
    """What came of each page: two at a time, as there are two cores."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(map(name_of, RUN), pool.map(there.play, RUN), strict=True))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_its_commands_run(page: Path, played: dict[str, Played]) -> None:
    made = played[name_of(page)]
    assert made.status == 0, f"{name_of(page)}, after {made.seconds:.1f} s:\n{made.said}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("moe-gateway chekc", "chekc"),
        ("moe-gateway check no.yaml", "no.yaml"),
        ("curl http://127.0.0.1:8080/v1/receipts/other", "404"),
        ("docker compose --profile neither up", "compose.yaml"),
        ("cd deploy\ndocker compose --profile neither up", "neither"),
        ("kubectl apply --kustomize deploy/kubernetes/overlays/none", "none"),
        ("make no-such-target", "no-such-target"),
        ("pip install 'moe-gateway[none]'", "none"),
        ("apt-get install wrk", "apt-get"),
        ("echo $UNSET_ANYWHERE", "UNSET_ANYWHERE"),
        ("false | cat\ntrue", "line 2"),
    ],
)
def test_a_command_that_cannot_be_run_fails(text: str, said: str, there: Stage, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```sh\n{text}\n```\n")
    made = there.play(page)
    assert made.status != 0
    assert said in made.said


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_block_says_what_it_is_and_is_that(page: Path) -> None:
    for block in blocks(page.read_text("utf-8")):
        place = f"{name_of(page)}:{block.first + 1}"
        assert block.language in LANGUAGES, f"{place}: {block.language or 'no language'}"
        assert_is(block, place)


def assert_is(block: Block, place: str) -> None:
    if block.language == "json":
        try:
            json.loads(block.text)
        except ValueError:
            for entry in re.sub(r"\n +", " ", block.text).splitlines():
                json.loads(entry)
    if block.language == "toml":
        tomllib.loads(block.text)
    if block.language == "python":
        compile(block.text, place, "exec")


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_commands_in_its_text_are_commands(page: Path) -> None:
    for command in inline(page.read_text("utf-8")):
        words = command.replace("…", "x").split(maxsplit=1)
        if words[:1] == ["moe-gateway"] and len(words) == 2 and "--help" not in command:
            assert parses(shlex.split(words[1])) or parses([*shlex.split(words[1]), "x"]), command
        if words[:1] == ["make"] and len(words) == 2:
            targets = [word for word in shlex.split(words[1]) if "=" not in word]
            assert set(targets) <= TARGETS, command


def parses(words: list[str]) -> bool:
    """Whether the command line takes the words; what has to be said besides may be missing."""
    try:
        assert_parses(words)
    except TyperException as error:
        return str(error).startswith("Missing parameter")
    return True


def test_what_runs_in_another_program_s_place_says_why() -> None:
    programs = [path for path in INSTEAD.iterdir() if not path.suffix]
    assert len(programs) > 6
    assert all(re.match(r"#!.*\n# [A-Z].{30,}", path.read_text("utf-8")) for path in programs)
    assert all(instead.why for instead in declared.SUBSTITUTIONS)


def test_a_page_s_script_has_the_page_s_lines() -> None:
    page = 'One\n\n- in a list\n\n  ```sh\n  echo one\n  ```\n\n```yaml title="a b.yaml"\nx: 1\n```\n\n```python\nprint(2)\n```\n'
    lines = script(page).split("\n")
    assert lines.index("echo one") == 5
    assert lines[8:11] == ["save 'a b.yaml' <<'__END__'", "x: 1", "__END__"]
    assert lines[12:15] == ["python - <<'__END__'", "print(2)", "__END__"]
    assert script("# No block\n\n```text\nno\n```\n") == ""
