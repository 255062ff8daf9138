"""The site: it builds without a warning, loads nothing from elsewhere, and nothing in it stayed Markdown."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.hooks import in_repository, named
from tests.docs.pages import DOCS, ROOT

LOADED = {("link", "href"), ("a", "ping")}  # and every src, srcset, data and poster
LOADS = {"src", "srcset", "data", "poster", "xlink:href"}
CHAPTERS = """Start in five minutes, How routing works, experts.yaml reference, Add a specialist, Serve on vLLM, Choose models,
Cost and dashboards, Deploy, Operate, Security, API reference, Metrics reference, Coming from, Extend, Architecture"""
SMALL = f"""
site_name: small
hooks: [{ROOT}/tests/docs/hooks.py]
not_in_nav: /repository/
validation: {{anchors: warn}}
"""
UNRENDERED = re.compile(r"<p>[^<]*(\n\s*([-*]|\d+\.) |\|\s*-{3}|```)")


class Reader(HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is not None and (name in LOADS or (tag, name) in LOADED):
                self.loaded.append(value)
            if value is not None and (tag, name) == ("a", "href"):
                self.links.append(value)
            if name == "class" and value is not None and "mermaid" in value.split():
                self.loaded.append("https://mermaid")  # its script would be fetched


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "--site-dir", str(site)]
    environment = {"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT / "mkdocs.yml", folder)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, str]:
    """The text of each page, by its path in the site."""
    return {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in site.rglob("*.html")}


def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[str, str]) -> None:
    loaded = {name: Reader(text).loaded for name, text in pages.items()}
    assert len(loaded) > 80
    assert all(loaded.values())
    assert not [(name, url) for name, urls in loaded.items() for url in urls if urlsplit(url).netloc]
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")] + list(pages.values())
    assert not [
        found for text in styles for found in re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\s)]+", text)
    ]


def test_what_is_written_as_a_list_a_table_or_a_block_is_shown_as_one(pages: dict[str, str]) -> None:
    assert not [(name, found[0]) for name, text in pages.items() for found in UNRENDERED.finditer(text)]


def test_each_chapter_is_there_in_its_order(pages: dict[str, str]) -> None:
    shown = re.findall(r'<span class="md-ellipsis">\s*([^<]+?)\s*<', pages["index.html"])
    chapters = re.split(r",\s+", CHAPTERS)
    assert [title for title in dict.fromkeys(shown) if title in chapters] == chapters


def test_links_to_elsewhere_are_addresses(pages: dict[str, str]) -> None:
    links = {link for text in pages.values() for link in Reader(text).links}
    elsewhere = {link for link in links if urlsplit(link).scheme}
    assert len(elsewhere) > 3
    assert not [link for link in elsewhere if not re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/[!-~]*)?", link)]


def test_every_picture_and_file_that_a_page_names_is_in_the_site(site: Path, pages: dict[str, str]) -> None:
    for name, text in pages.items():
        reader = Reader(text)
        for link in (*reader.loaded, *reader.links):
            parts = urlsplit(link)
            if not parts.scheme and parts.path and name != "404.html":
                assert (site / name).parent.joinpath(parts.path).exists(), f"{name}: {link}"


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *ROOT.glob("deploy/**/README.md"),
        ROOT / "tests" / "clients" / "README.md",
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_of_pages_beside_the_site_lead_to_files(path: Path) -> None:
    names = named(path.read_text("utf-8"), path.relative_to(ROOT).as_posix())
    assert not [name for name in names if not (ROOT / name).exists()]


def test_a_page_that_links_to_what_is_not_there_is_not_built(tmp_path: Path) -> None:
    made = {
        "docs/index.md": "# One\n\n[two](two.md#three) [own](../own.py) [gone](../gone.md)\n",
        "docs/two.md": "# Two\n\n[again](../own.py)\n\n```text\n[nor](../this.md)\n```\n",
        "own.py": "print('`````')\n",
        "mkdocs.yml": SMALL,
    }
    for name, text in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode == 1
    assert "gone.md" in built.stderr
    assert "three" in built.stderr
    assert "own.py" not in built.stderr
    assert "this.md" not in built.stderr
    (tmp_path / "docs" / "index.md").write_text("# One\n\n[two](two.md#two) [own](../own.py)\n")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "site").returncode == 0
    assert "print" in (tmp_path / "site" / "repository" / "own.py" / "index.html").read_text()


def test_a_page_of_the_repository_has_one_place_in_the_site() -> None:
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).as_posix()
        assert in_repository(page) == f"docs/{page}"
