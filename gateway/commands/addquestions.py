"""What `experts add` asks on a terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.table import Table
from rich.text import Text

from gateway.commands.adding import read_examples, read_qualities
from gateway.console import out

if TYPE_CHECKING:
    from gateway.listing import Listing
    from router.cataloguing.catalog import Catalog
    from router.cataloguing.entry import Model

SHOWN = 15  # models at a time


def model_or_address(catalog: Catalog, gpu_gb: float, gpus: int) -> str:
    """A key of the catalogue, or the address of a server."""
    out.print("A model of the catalogue, or the address of a server that has one.", highlight=False)
    out.print(
        f"Only what fits on {gpus} × {gpu_gb:g} GB is shown; --gpu-memory and --gpus say otherwise.\n", style="dim"
    )
    shown: list[str] = []
    while True:
        said = _asked("Part of a name, a task such as code, http://…, or a number of the list")
        if said.startswith(("http://", "https://")):
            return said
        if said.isdigit() and 1 <= int(said) <= len(shown):
            return shown[int(said) - 1]
        if said.lower() in catalog.models:
            return said.lower()
        found = _fitting(catalog, said.lower(), gpu_gb, gpus)
        shown = list(found)[:SHOWN]
        _show_models({key: found[key] for key in shown}, len(found))


def _fitting(catalog: Catalog, said: str, gpu_gb: float, gpus: int) -> dict[str, Model]:
    """The best first, as their benchmarks have it."""
    from router.cataloguing.fitting import fit
    from router.cataloguing.listing import Wanted, listed
    from router.cataloguing.words import TASKS
    from router.errors import CatalogError

    tasks = (said,) if said in TASKS else ()
    found: dict[str, Model] = {}
    for one in listed(catalog, Wanted(tasks=tasks, sort="quality")):
        if not tasks and said not in f"{one.key} {one.model.name} {one.model.maker}".lower():
            continue
        try:
            fit(one.model, gpu_gb, gpus)
        except CatalogError:
            continue
        found[one.key] = one.model
    return found


def _show_models(models: Mapping[str, Model], count: int) -> None:
    table = Table(
        "", "model", "tasks", "billions", "context", "licence", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    for number, (key, model) in enumerate(models.items(), 1):
        size = f"{model.parameters.total:g}" if model.parameters else "?"
        licence = model.licence.id if model.licence else "?"
        cells = (str(number), key, " ".join(model.tasks), size, f"{model.context or 0:,}", licence)
        table.add_row(*map(Text, cells))
    table.columns[1].no_wrap = True  # it is what one may type
    out.print(table if count else "none that fits", highlight=False)
    if count > len(models):
        out.print(f"… and {count - len(models)} more: say more of the name", style="dim", highlight=False)


def served_model(listing: Listing) -> str:
    """Which of the server's models it is to be."""
    from gateway.listing import shown

    names = list(listing.cards)
    if len(names) == 1:
        return names[0]
    for number, name in enumerate(names, 1):
        window, parent = listing.window(name), listing.cards[name].parent
        note = f"  adapter of {shown(parent)}" if parent else ""
        out.print(f"{number:3} {shown(name)}  {window or '?'} tokens{note}", highlight=False, markup=False)
    while True:
        said = _asked("Which model, by number or name", "1")
        if said in names:
            return said
        if said.isdigit() and 1 <= int(said) <= len(names):
            return names[int(said) - 1]


def expert_id(proposed: str, taken: Collection[str]) -> str:
    while (said := _asked("The expert's id", proposed)) in taken:
        out.print(f"there is {said} already", style="red", markup=False)
    return said


def domains(proposed: Mapping[str, float | None], known: Sequence[str]) -> dict[str, float | None]:
    """With their qualities, None where none is named."""
    told = ",".join(name if quality is None else f"{name}={quality:g}" for name, quality in proposed.items())
    out.print(f"Domains are {', '.join(known)}; another name makes a new one.", markup=False, highlight=False)
    while True:
        said = _asked("What it is good at, and how good from 0 to 1, such as code=0.9,math=0.5", told or None)
        try:
            return read_qualities([said])
        except ValueError as error:
            out.print(str(error), style="red", markup=False, highlight=False)


def description(domain: str) -> str:
    out.print(f"\n{domain} is a new domain: the router learns it from example prompts.", highlight=False, markup=False)
    return _asked("What it is about, in a few words, such as statutes, contracts, case law")


def examples(proposed: Sequence[str], least: int) -> tuple[str, ...]:
    """At least so many: of the proposed ones, of a file, and typed."""
    found: dict[str, None] = {}
    if proposed:
        out.print("\nOf the router's own corpus these are near:", highlight=False)
        for number, prompt in enumerate(proposed, 1):
            out.print(Text.assemble((f"{number:3} ", "dim"), _clipped(prompt)), soft_wrap=True)
        said = _asked("Which to take: all, none, or numbers such as 1,3-5", "all")
        found |= dict.fromkeys(proposed[n - 1] for n in numbers(said, len(proposed)))
    while True:
        said = typer.prompt("A file of prompts of your own; Enter for none", "", show_default=False).strip()
        if said and not Path(said).is_file():
            out.print(f"there is no file {said}", style="red", markup=False)
            continue
        found |= dict.fromkeys(read_examples(Path(said)) if said else ())
        out.print("Prompts as people really ask them, one a line; an empty line ends.", highlight=False)
        while line := typer.prompt("", "", show_default=False, prompt_suffix="> ").strip():
            found[line] = None
        if len(found) >= least:
            return tuple(found)
        out.print(f"{len(found)} so far; {least} are needed, and 10 to 50 are better", style="yellow", highlight=False)


def numbers(said: str, most: int) -> list[int]:
    """From all, none, or numbers and ranges; what is none of them counts for nothing."""
    if said.strip().lower() in ("all", "none"):
        return list(range(1, most + 1)) if said.strip().lower() == "all" else []
    found: set[int] = set()
    for part in said.replace(" ", ",").split(","):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if len(part) < 10 and first.isdigit() and last.isdigit():
            found |= set(range(max(int(first), 1), min(int(last), most) + 1))
    return sorted(found)


def _asked(question: str, default: str | None = None) -> str:
    return str(typer.prompt(question, default)).strip()


def _clipped(text: str, characters: int = 100) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= characters else f"{text[:characters]}…"
