"""Pages as people read them: one HTML file, no script, nothing loaded from anywhere, light and dark, fit to print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router.measuring.report_style import STYLE


def document_page(title: str, *inner: str, style: str = "") -> str:
    """A whole page; `inner` is markup, `style` more rules for it."""
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    start = f"<!doctype html><html lang=en><head><meta charset=utf-8>{policy}"
    start += f"<meta name=viewport content='width=device-width'><title>{title}</title>"
    return f"{start}<style>{STYLE}{style}</style></head><body><main>{''.join(inner)}</main></body></html>\n"


def section(title: str, why: str, *inner: str) -> str:
    return f"<section><h2>{title}</h2><p class=why>{why}</p>{''.join(inner)}</section>"


def figure(caption: str, plot: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{plot}</figure>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells hold markup already: text goes through plots.escaped before it comes here."""
    names = "".join(f"<th>{name}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=scroll><table class='{kind}'><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table></div>"
