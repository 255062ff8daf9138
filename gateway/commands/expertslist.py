"""The experts of a file as a table and as JSON; no address and no key is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.console import out, printable

if TYPE_CHECKING:
    from router.experts import Expert

WIDE = 190  # characters that a table which goes to no terminal may take
HEAD = ("expert", "model", "domains", "answers", "USD in / out", "context", "languages")


def described(name: str, expert: Expert) -> dict[str, Any]:
    """As JSON has it."""
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


def show(rows: Sequence[dict[str, Any]]) -> None:
    """`rows` are described experts."""
    table = Table(*HEAD, box=None, header_style="bold", padding=(0, 2, 0, 0))
    for row in rows:
        price = row["price"]
        cost = _said(price) if price else "—"
        domains = " ".join(f"{domain}:{quality:g}" for domain, quality in row["domains"].items())
        window = f"{row['context_window']:,}" if row["context_window"] else "—"
        cells = (row["id"], row["model"], domains, row["upstream"], cost, window, " ".join(row["languages"]) or "all")
        table.add_row(*(escape(printable(cell)) for cell in cells))
    for column in table.columns:
        column.overflow = "fold"
    console = out if out.is_terminal else Console(width=max(out.width, WIDE))
    console.print(table, highlight=False)
