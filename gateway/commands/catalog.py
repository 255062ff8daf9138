"""moe-gateway catalog: open models that people deploy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.commands.shared import Json
from gateway.console import err, fail, out, print_json
from router.errors import CatalogError, ConfigError

if TYPE_CHECKING:
    from router.cataloguing.comparison import Comparison
    from router.cataloguing.entry import Model
    from router.cataloguing.listing import Listed

WIDE = 190  # characters: as many as all COLUMNS take, and a table that goes to no terminal may
COLUMNS = (
    "model",
    "parameters",
    "GB",
    "USD in / out",
    "quality",
    "open",
    "licence",
    "context",
    "released",
    "family",
    "tasks",
)
NARROW = ("model", "parameters", "GB", "USD in / out", "quality", "open")

catalog = typer.Typer(
    no_args_is_help=True, help="Open models that people deploy: how good, how open, how large, at what price."
)


@catalog.command("list")
def list_models(
    task: Annotated[
        list[str] | None, typer.Option(help="What its maker says it is for, such as bio; several have to hold all.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="permissive, conditional, research, or a licence such as Apache-2.0.")
    ] = None,
    max_gb: Annotated[
        str | None, typer.Option(metavar="GB", help="At most so much GPU memory, with one sequence of 8,192 tokens.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Reckon memory at bf16, fp8 or 4bit; else as its weights were published.")
    ] = None,
    open: Annotated[str | None, typer.Option(help="At least so open: full, partial or weights.")] = None,
    family: Annotated[str | None, typer.Option(help="Llama, Qwen, Mistral, …")] = None,
    language: Annotated[str | None, typer.Option(help="A language that its maker names, such as ja.")] = None,
    min_context: Annotated[str | None, typer.Option(metavar="TOKENS", help="At least so long a context.")] = None,
    sort: Annotated[str, typer.Option(help="name, quality, price, size or released.")] = "name",
    as_json: Json = False,
) -> None:
    """List the models that have what is asked. What is not known of a model does not count as met.

    Example: moe-gateway catalog list --task bio --license permissive --max-gb 24 --sort quality
    """
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.listing import Wanted, listed

    said = {"task": task, "license": license, "max_gb": max_gb, "precision": precision, "open": open, "family": family}
    models = load_catalog()
    try:
        wanted = Wanted.read({**said, "language": language, "min_context": min_context, "sort": sort}, models)
    except CatalogError as error:
        raise typer.BadParameter(str(error).replace("_", "-", 1)) from None
    found = listed(models, wanted)
    if as_json:
        print_json({"object": "list", "data": [one.described() for one in found]})
        return
    _print(_listing(found))
    out.print(f"{len(found)} of {len(models.models)} models", highlight=False)


@catalog.command()
def show(name: Annotated[str, typer.Argument(help="A model's key or hub id.")], as_json: Json = False) -> None:
    """Say all that is known of one model, what memory it takes, how vLLM serves it, and where each fact stands.

    Example: moe-gateway catalog show biomistral-7b
    """
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.comparison import NOTHING, facts
    from router.cataloguing.listing import Listed
    from router.cataloguing.quality import qualities

    models = load_catalog()
    key = models.find(name)
    model, quality = models.models[key], qualities(models.models).get(key)
    if as_json:
        print_json(Listed(key, model, quality, model.precision).described())
        return
    out.print(key, style="bold", markup=False, highlight=False)
    if model.note:
        out.print(model.note, markup=False, highlight=False, soft_wrap=True)
    rows = [[fact, said] for fact, said in facts(model, quality) if said != NOTHING and not fact.startswith("GB at")]
    _print(_table([], rows))
    _print(_memory(model))
    _print(_table(["fact", "stands at"], [[fact, source] for fact, source in _pages(model)]))


@catalog.command()
def compare(
    names: Annotated[list[str], typer.Argument(help="Keys or hub ids, two or more.")],
    task: Annotated[str | None, typer.Option(help="Compare quality in this task; else all in all.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page: the picture and the table.")] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the picture: quality against price.")] = None,
    as_json: Json = False,
) -> None:
    """Lay models side by side, as a table and as a picture.

    Example: moe-gateway catalog compare gpt-oss-20b qwen2.5-coder-32b-instruct --task code --html comparison.html
    """
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.comparison import Comparison
    from router.cataloguing.words import TASKS

    if task is not None and task not in TASKS:
        raise typer.BadParameter(f"task is not {task[:40]!r}; it is one of {', '.join(TASKS)}")
    models = load_catalog()
    keys = list(dict.fromkeys(models.find(name) for name in names))
    if len(keys) < 2:
        raise typer.BadParameter("name two models or more")
    comparison = Comparison(models, keys, task)
    if svg is not None:
        svg.write_text(comparison.svg(), "utf-8")
    if html is not None:
        html.write_text(comparison.page(), "utf-8")
    if as_json:
        print_json(comparison.described())
        return
    _print_compared(comparison)
    for path in (svg, html):
        if path is not None:
            err.print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


@catalog.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="A catalogue; the packaged one where not given.")] = None,
    as_json: Json = False,
) -> None:
    """Say everything that is wrong with a catalogue, each with its line; exit status 1 where anything is.

    Example: moe-gateway catalog check
    """
    from router.cataloguing.catalog import PACKAGED
    from router.cataloguing.lint import lint

    path = file or PACKAGED
    try:
        found = lint(path)
    except (FileNotFoundError, IsADirectoryError):
        fail(f"there is no {path}")
    except UnicodeDecodeError as error:
        fail(f"{path} cannot be read: {error}")
    except ConfigError as error:
        if not as_json:
            raise
        print_json({"ok": False, "problems": [{n: getattr(p, n) for n in p.__slots__} for p in error.problems]})
        raise typer.Exit(1) from None
    if as_json:
        print_json({"ok": True, "models": len(found.models)})
        return
    out.print(f"{path.name}: fine: {len(found.models)} models", markup=False, highlight=False, soft_wrap=True)


@catalog.command()
def count(as_json: Json = False) -> None:
    """Count the models by family, licence and task and how open they are, as tables of Markdown.

    Example: moe-gateway catalog count
    """
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.counting import counts, markdown

    models = load_catalog()
    if as_json:
        print_json(counts(models))
        return
    out.print(markdown(models), end="", markup=False, highlight=False, soft_wrap=True)


def _listing(found: Sequence[Listed]) -> Table:
    from router.cataloguing.comparison import NOTHING, size_of

    columns: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for one in found:
        model, memory, price = one.model, one.model.memory(one.precision), one.model.price
        cells = {
            "model": one.key,
            "parameters": size_of(model),
            "GB": f"{memory.total:.1f} {one.precision}" if memory else NOTHING,
            "USD in / out": f"{price.input:g} / {price.output:g}" if price else NOTHING,
            "quality": f"{one.quality.value:.0f}" if one.quality else NOTHING,
            "open": model.open or NOTHING,
            "licence": model.licence.kind if model.licence else NOTHING,
            "context": f"{model.context:,}" if model.context else NOTHING,
            "released": model.released or NOTHING,
            "family": model.family,
            "tasks": " ".join(model.tasks),
        }
        for name in COLUMNS:
            columns[name].append(cells[name])
    head = [name for name in COLUMNS if _width() >= WIDE or name in NARROW]
    rows = zip(*(columns[name] for name in head), strict=True)
    return _table(head, [list(row) for row in rows], right=("GB", "USD in / out", "quality", "context"))


def _memory(model: Model) -> Table:
    from router.cataloguing.comparison import NOTHING
    from router.cataloguing.entry import SHORT_CONTEXT
    from router.cataloguing.words import PRECISIONS

    lengths = list(dict.fromkeys(min(n, model.context or n) for n in (SHORT_CONTEXT, model.context or SHORT_CONTEXT)))
    head = ["GB", "weights", *(f"cache of {n:,} tokens" for n in lengths), *(f"all of it with {n:,}" for n in lengths)]
    rows = []
    for precision in PRECISIONS:
        found = [model.memory(precision, n) for n in lengths]
        cells = [f"{m.cache:.1f}" if m else NOTHING for m in found] + [
            f"{m.total:.1f}" if m else NOTHING for m in found
        ]
        published = " (published)" if precision == model.precision else ""
        rows.append([precision + published, f"{found[0].weights:.1f}" if found[0] else NOTHING, *cells])
    return _table(head, rows, right=head[1:])


def _pages(model: Model) -> list[tuple[str, str]]:
    pages = list(model.sources.model_dump(exclude_none=True).items())
    pages += [(name.replace("_", " "), criterion.source) for name, criterion in model.openness if criterion]
    pages += [(f"{score.benchmark} {score.date}", score.source) for score in model.scores]
    return pages + ([("price", model.price.source)] if model.price else [])


def _print_compared(comparison: Comparison) -> None:
    _print(_table(["", *comparison.keys], [[fact, *cells] for fact, cells in comparison.rows()]))
    for key, why in comparison.not_drawn().items():
        err.print(f"{key}: not in the picture: {why}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> Table:
    table = Table(*map(escape, head), box=None, header_style="bold", padding=(0, 2, 0, 0), show_header=bool(head))
    for row in rows:
        table.add_row(*map(escape, row))
    for column in table.columns:
        column.overflow = "fold"
        if column.header in right:
            column.justify = "right"
    return table


def _width() -> int:
    return out.width if out.is_terminal else max(out.width, WIDE)


def _print(table: Any) -> None:
    console = out if out.is_terminal else Console(width=_width())
    console.print(table, highlight=False)
    console.print()
