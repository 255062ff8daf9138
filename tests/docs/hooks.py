"""What mkdocs.yml cannot say: folders in its navigation, and links to files of the repository.

The pages link to files as GitHub has them: `../experts.yaml`, `../deploy/README.md`. Where the repository will be published is
not known here, so the site carries each file that a page names, beneath `repository/`, and the links lead there.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()(?P<target>[^)\s]+)(?=[)\s])")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
CARRIED = "repository/"  # where the site has the repository's other files
HIGHLIGHTED = 50_000  # characters; more takes seconds to colour
LANGUAGES = {".yaml": "yaml", ".yml": "yaml", ".py": "python", ".toml": "toml", ".json": "json", ".sh": "sh"}
log = logging.getLogger("mkdocs.hooks")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """In the navigation `folder/` stands for each of the folder's pages, by name, a README first."""
    docs = Path(config.docs_dir)
    if config.nav is not None:
        config.nav = [_opened(entry, docs) for entry in config.nav]
    return config


def _opened(entry: Any, docs: Path) -> Any:
    match entry:
        case str() if entry.endswith("/"):
            raise ValueError(f"nav: {entry} needs a title")
        case dict():
            return {title: _opened_below(below, docs) for title, below in entry.items()}
    return entry


def _opened_below(below: Any, docs: Path) -> Any:
    if isinstance(below, list):
        return [_opened(entry, docs) for entry in below]
    if isinstance(below, str) and below.endswith("/"):
        pages = sorted((docs / below).glob("*.md"), key=lambda page: (page.name != "README.md", page.name))
        return [page.relative_to(docs).as_posix() for page in pages]
    return below


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files of the repository that pages link to, and those that these link to in turn."""
    root = Path(config.docs_dir).parent
    waiting = [file for file in files if file.is_documentation_page()]
    while waiting:
        file = waiting.pop()
        for name in named(file.content_string, in_repository(file.src_uri)):
            if in_site(name) in files.src_uris or name.startswith("docs/") or not (root / name).exists():
                continue
            carried = File.generated(config, in_site(name), content=_page(root, name))
            files.append(carried)
            if name.endswith(".md"):
                waiting.append(carried)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leads the links to the repository's files to where the site carries them."""
    here = page.file.src_uri

    def led(target: str) -> str:
        name = resolved(target, in_repository(here))
        if name is None or (name.startswith("docs/") and here.startswith(CARRIED) is False):
            return target
        if in_site(name) not in files.src_uris:
            log.warning("%s: links to %s, which the repository does not have", in_repository(here), target)
        anchor = urlsplit(target).fragment
        return posixpath.relpath(in_site(name), posixpath.dirname(here)) + (f"#{anchor}" if anchor else "")

    return "\n".join(_with_links(markdown, led))


def named(markdown: str, here: str) -> set[str]:
    """The repository's files, by their paths in it, that the page `here` links to."""
    found: set[str] = set()

    def note(target: str) -> str:
        if (name := resolved(target, here)) is not None:
            found.add(name)
        return target

    for _ in _with_links(markdown, note):
        pass
    return found


def resolved(target: str, here: str) -> str | None:
    """The path in the repository that a link on the page `here` leads to; None for other places and for the page itself."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or not parts.path:
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), parts.path))


def in_repository(page: str) -> str:
    """Where the repository has what the site has at `page`."""
    if not page.startswith(CARRIED):
        return f"docs/{page}"
    name = page.removeprefix(CARRIED)
    return name if name.endswith("README.md") else name.removesuffix(".md")


def in_site(name: str) -> str:
    """Where the site has the repository's file `name`."""
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return CARRIED + name + ("" if name.endswith(".md") else ".md")


def _with_links(markdown: str, led: Callable[[str], str]) -> Iterator[str]:
    """The lines, with each link's target put through `led`; fenced blocks stay as they are."""
    fence = ""
    for line in markdown.split("\n"):
        if match := FENCE.match(line):
            if not fence:
                fence = match[1]
            elif match[1].startswith(fence):
                fence = ""
        yield line if fence else LINK.sub(lambda found: led(found["target"]), line)


def _page(root: Path, name: str) -> str:
    if (root / name).is_dir():
        files = sorted(path.relative_to(root / name).as_posix() for path in (root / name).rglob("*") if path.is_file())
        return f"# {name}/\n\n" + "".join(f"- `{file}`\n" for file in files)
    text = (root / name).read_text("utf-8")
    if name.endswith(".md"):
        return text
    language = LANGUAGES.get(Path(name).suffix, "text") if len(text) < HIGHLIGHTED else "text"
    return f"---\nsearch: {{exclude: true}}\n---\n# {name}\n\n``````{language}\n{text}\n``````\n"
