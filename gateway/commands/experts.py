"""moe-gateway experts: the experts of an experts.yaml."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.commands.shared import DEFAULT_CONFIG, Config, Json, read_config
from gateway.console import err, fail, out, print_json
from gateway.replacing import replace_file

if TYPE_CHECKING:
    from router.cataloguing.fitting import Fit
    from router.cataloguing.words import Precision
    from router.experts import Expert

WIDE = 190  # characters that a table which goes to no terminal may take

experts = typer.Typer(
    no_args_is_help=True, help="The experts of an experts.yaml: list them, add one of the catalogue, remove one."
)


@experts.command("list")
def list_experts(config: Config = DEFAULT_CONFIG, as_json: Json = False) -> None:
    """List the experts of a file.

    Example: moe-gateway experts list --config experts.yaml
    """
    file = read_config(config)
    rows = [_described(name, expert) for name, expert in file.experts.items()]
    if as_json:
        print_json({"object": "list", "data": rows})
        return
    table = Table(*HEAD, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        price = row["price"]
        cost = _said(price) if price else "—"
        domains = " ".join(f"{domain}:{quality:g}" for domain, quality in row["domains"].items())
        window = f"{row['context_window']:,}" if row["context_window"] else "—"
        cells = (row["id"], row["model"], domains, row["upstream"], cost, window, " ".join(row["languages"]) or "all")
        table.add_row(*map(escape, cells))
    for column in table.columns:
        column.overflow = "fold"
    console = out if out.is_terminal else Console(width=max(out.width, WIDE))
    console.print(table, highlight=False)


HEAD = ("expert", "model", "domains", "answers", "USD in / out", "context", "languages")


@experts.command()
def add(
    name: Annotated[str, typer.Argument(help="A model of the catalogue: its key or hub id.")],
    expert: Annotated[
        str | None, typer.Option("--id", help="The expert's id; the model's key where not given.")
    ] = None,
    gpu_memory: Annotated[float, typer.Option(metavar="GB", min=1, max=10_000, help="GB of one GPU.")] = 24.0,
    gpus: Annotated[int, typer.Option(min=1, max=64, help="GPUs that it may be split among.")] = 1,
    url: Annotated[
        str | None, typer.Option(help="A vLLM that serves it already, or will; without one the gateway launches it.")
    ] = None,
    quantised: Annotated[
        str | None,
        typer.Option(
            "--quantised",
            "--quantized",
            metavar="HUB-ID",
            help="A copy to serve in its place: fp8 where its name says so, else 4 bits.",
        ),
    ] = None,
    config: Config = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the entry and write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Write an expert for a model of the catalogue into an experts file, of which every other byte stays as it is.

    It is served in the widest precision that fits: bf16, else fp8, else 4 bits; on as few GPUs and with as long a context as do.

    Example: moe-gateway experts add qwen2.5-coder-7b-instruct --id coder2 --gpu-memory 24
    """
    from router.cataloguing.catalog import load_catalog
    from router.cataloguing.experts import arguments_of, expert_lines
    from router.cataloguing.fitting import fit
    from router.experts import parse_experts
    from router.yamledit import with_entry

    file = read_config(config)
    models = load_catalog()
    key = models.find(name)
    chosen = expert or key
    if chosen in file.experts:
        fail(f"{config} has an expert {chosen!r} already; name another with --id")
    found = fit(models.models[key], gpu_memory, gpus, _precision(quantised))
    lines = expert_lines(chosen, found, file, None if url is None else _with_path(url), quantised)
    text = with_entry(_text(config), "experts", lines, config.name)
    parse_experts(text, config.name)
    command = ["vllm", "serve", quantised or found.model.name, *arguments_of(found, quantised)]
    if not dry_run:
        replace_file(config, text)
    if as_json:
        print_json({"id": chosen, "written": not dry_run, "entry": lines, "command": command, **_fitted(found)})
        return
    for line in lines:
        out.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    done = f"would go into {config}" if dry_run else f"written to {config}"
    out.print(f"\n{chosen}: {done}; worker: {shlex.join(command)}", markup=False, highlight=False, soft_wrap=True)
    for note in _notes(found, quantised):
        err.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)


@experts.command()
def remove(
    expert: Annotated[str, typer.Argument(help="Its id.")],
    config: Config = DEFAULT_CONFIG,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say whether it can go, and write nothing.")] = False,
) -> None:
    """Take an expert out of an experts file, with the comments below its first line; refused where another refers to it.

    Example: moe-gateway experts remove coder2
    """
    from router.experts import parse_experts
    from router.yamledit import without_entry

    file = read_config(config)
    if expert not in file.experts:
        fail(f"{config} has no expert {expert!r}; it has {', '.join(file.experts)}")
    text = without_entry(_text(config), "experts", expert, config.name)
    parse_experts(text, config.name)
    if not dry_run:
        replace_file(config, text)
    done = "would be removed from" if dry_run else "removed from"
    out.print(f"{expert}: {done} {config}", markup=False, highlight=False, soft_wrap=True)


def _described(name: str, expert: Expert) -> dict[str, Any]:
    """As JSON has it; no address and no key is told."""
    return {
        "id": name,
        "model": expert.model,
        "domains": expert.domains,
        "upstream": _upstream(expert),
        "price": expert.price.model_dump(exclude_none=True) if expert.price else None,
        "context_window": expert.context_window,
        "capabilities": sorted(expert.capabilities),
        "languages": sorted(expert.languages),
        "fallbacks": list(expert.fallbacks),
        "stand_in": expert.stand_in,
    }


def _said(price: dict[str, Any]) -> str:
    return f"{price['gpu_hour']:g} / GPU h" if "gpu_hour" in price else f"{price['input']:g} / {price['output']:g}"


def _upstream(expert: Expert) -> str:
    upstream = expert.upstream
    adapter = f", adapter {upstream.adapter.name}" if upstream.adapter else ""
    if upstream.launch:
        gpus = f" on GPU {','.join(map(str, upstream.launch.gpus))}" if upstream.launch.gpus else ""
        return f"launched {upstream.launch.engine} × {upstream.launch.replicas}{gpus}{adapter}"
    if upstream.vllm:
        return f"vllm × {len(upstream.vllm)}{adapter}"
    if upstream.worker:
        return f"worker of {upstream.worker}{adapter}"
    if upstream.custom:
        return f"custom {upstream.custom}"
    return f"litellm {upstream.litellm.partition('/')[0]}" if upstream.litellm else "stand-in"


def _fitted(found: Fit) -> dict[str, Any]:
    return {
        "model": found.model.name,
        "precision": found.precision,
        "gpus": found.gpus,
        "context_window": found.context,
        "gb_of_each_gpu": round(found.each_gb, 1),
    }


def _notes(found: Fit, quantised: str | None) -> list[str]:
    notes = []
    if found.precision == "4bit" and found.quantised and quantised is None:
        notes.append(
            "at 4 bits vLLM rounds the weights while it loads them (MXFP4, vLLM 0.29 or newer); a copy that was quantised with "
            "AWQ or GPTQ answers better: name one with --quantised"
        )
    if found.precision == "fp8" and found.quantised and quantised is None:
        notes.append(
            "at fp8 vLLM rounds the weights while it loads them; a GPU older than Ada computes with them in 16 bits"
        )
    if found.model.context and found.context < found.model.context:
        notes.append(
            f"a context of {found.context:,} tokens goes in, of the {found.model.context:,} that the model has"
        )
    if found.model.licence and found.model.licence.limits:
        notes.append(f"{found.model.licence.id}: {found.model.licence.limits}")
    return notes


def _precision(copy: str | None) -> Precision | None:
    """What a quantised copy has, by its name."""
    if copy is None:
        return None
    return "fp8" if "fp8" in copy.lower() else "4bit"


def _with_path(url: str) -> str:
    """vLLM's API is under /v1."""
    return f"{url.rstrip('/')}/v1" if urlsplit(url).path in ("", "/") else url


def _text(path: Path) -> str:
    """With the ends of its lines as they are."""
    return path.read_bytes().decode("utf-8")
