"""The pages that are read, and run: those of the site, and those of the repository that a reader starts from."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BESIDE = [ROOT / "README.md", ROOT / "deploy" / "README.md", ROOT / "deploy" / "vllm-cpu" / "README.md"]


def pages() -> list[Path]:
    return [*sorted(DOCS.rglob("*.md")), *BESIDE]


def name_of(page: Path) -> str:
    """How a page is called in what tests say."""
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
