"""The pictures of docs/guide/routing.md. `python -m tests.docs.pictures` draws them; a test compares."""

from __future__ import annotations

from html import escape

from tests.docs.pages import DOCS

FONT = "DejaVu Sans, Verdana, sans-serif"
INK, QUIET, LINE, PALE = "#0f172a", "#475569", "#334155", "#f8fafc"
BLUE, GREEN, YELLOW, ROSE = "#e0f2fe", "#dcfce7", "#fef9c3", "#fae8ff"
BAR, CHOSEN = "#94a3b8", "#0f766e"
# What `moe-gateway route --json` says of this prompt, and the qualities of experts such as those of deploy/experts.production.yaml.
PROMPT = "Derive the sum of the first n cubes, and check it with a Python function"
CHANCES = {"code": 0.69, "math": 0.29, "bio": 0.01, "general": 0.01}
QUALITIES = {
    "coder": {"code": 0.95, "math": 0.70, "bio": 0.40, "general": 0.40},
    "mathematician": {"code": 0.80, "math": 0.95, "bio": 0.40, "general": 0.40},
    "general": {"code": 0.75, "math": 0.75, "bio": 0.70, "general": 0.85},
}
PRICES = {"coder": 0.26, "mathematician": 0.90, "general": 0.06}  # USD per million tokens, three in for one out
TOLERANCE = 0.1  # of auto:cheap


def picture(width: int, height: int, what: str, *parts: str) -> str:
    marker = '<marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    arrow = f'<defs>{marker}<path d="M0 0 L10 5 L0 10 z" fill="{LINE}"/></marker></defs>'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="{FONT}" fill="{INK}"'
        f' role="img" aria-label="{escape(what)}">'
    )
    return "\n".join((head, arrow, f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *parts, "</svg>\n"))


def text(
    x: float, y: float, words: str, size: int = 12, fill: str = QUIET, anchor: str = "middle", bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{fill}"{weight}>{escape(words)}</text>'


def box(x: int, y: int, width: int, height: int, colour: str, title: str, *lines: str) -> str:
    middle = x + width / 2
    said = [text(middle, y + 42 + 17 * i, line) for i, line in enumerate(lines)]
    frame = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="{colour}" stroke="{LINE}" stroke-width="1.5"/>'
    return frame + text(middle, y + 23, title, 14, INK, bold=True) + "".join(said)


def arrow(*points: tuple[int, int], words: str = "", at: tuple[int, int] = (0, 0)) -> str:
    path = " L".join(f"{x} {y}" for x, y in points)
    said = text(*at, words, 11) if words else ""
    return f'<path d="M{path}" fill="none" stroke="{LINE}" stroke-width="1.5" marker-end="url(#a)"/>{said}'


def steps() -> str:
    """From a prompt to an expert."""
    return picture(
        980,
        330,
        "How a prompt becomes a decision",
        box(20, 40, 150, 100, BLUE, "Conversation", "its turns, the system", "prompt, tools,", "images, size"),
        box(215, 40, 160, 100, GREEN, "First stage", "n-grams of the text", "0.1 to 0.4 ms", "sure of two in three"),
        box(215, 200, 160, 84, GREEN, "Second stage", "transformer, 8 bits", "5 to 7 ms, a thread"),
        box(
            440,
            40,
            165,
            100,
            GREEN,
            "Probabilities",
            "of each domain,",
            "calibrated; domains of",
            "your own as detectors",
        ),
        box(440, 200, 165, 84, ROSE, "Doubt", "gibberish, a language", "that cannot be read"),
        box(
            655, 40, 160, 100, YELLOW, "Expected quality", "Σ P(domain) × quality", "of experts that are", "able and up"
        ),
        box(850, 40, 110, 100, YELLOW, "Policy", "auto", "auto:cheap", "auto:best"),
        box(
            670,
            200,
            290,
            84,
            BLUE,
            "Expert, and its fallbacks",
            "kept for the conversation unless leaving",
            "it is worth the lost prefix cache",
        ),
        arrow((170, 90), (213, 90)),
        arrow((375, 90), (438, 90), words="sure", at=(406, 82)),
        arrow((295, 140), (295, 198), words="not sure", at=(328, 173)),
        arrow((375, 230), (410, 230), (410, 115), (438, 115)),
        arrow((522, 140), (522, 198)),
        arrow((605, 90), (653, 90)),
        arrow((815, 90), (848, 90)),
        arrow((905, 140), (905, 198)),
        arrow((605, 242), (668, 242), words="fallback", at=(636, 234)),
        text(
            490,
            312,
            "One decision takes well under a millisecond, or some ten where the transformer has to read the text.",
            12,
        ),
    )


def expected(expert: str) -> float:
    return sum(CHANCES[domain] * quality for domain, quality in QUALITIES[expert].items())


def choice() -> str:
    """The arithmetic of one decision."""
    best = max(map(expected, QUALITIES))
    near = [expert for expert in QUALITIES if expected(expert) >= best - TOLERANCE]
    cheap = min(near, key=PRICES.__getitem__)
    parts = [text(20, 34, f"“{PROMPT}”", 14, INK, "start", bold=True)]
    parts.append(text(20, 66, "P(domain)", 13, INK, "start", bold=True))
    for i, (domain, chance) in enumerate(CHANCES.items()):
        y = 92 + 28 * i
        parts += [text(70, y + 4, domain, 12, QUIET, "end"), bar(80, y - 8, 150 * chance, BAR)]
        parts.append(text(86 + 150 * chance, y + 4, f"{chance:.2f}", 12, INK, "start"))
    parts.append(text(330, 66, "× quality of each expert", 13, INK, "start", bold=True))
    for j, (expert, qualities) in enumerate(QUALITIES.items()):
        x = 345 + 115 * j
        parts.append(text(x, 92 + 28 * 4, expert, 12, INK, bold=True))
        parts += [text(x, 96 + 28 * i, f"{quality:.2f}") for i, quality in enumerate(qualities.values())]
    parts.append(text(690, 66, "= expected quality", 13, INK, "start", bold=True))
    for i, expert in enumerate(QUALITIES):
        y, value = 92 + 36 * i, expected(expert)
        parts += [
            bar(690, y - 8, 200 * value, CHOSEN if value == best else BAR),
            text(896, y + 4, f"{value:.2f}", 12, INK, "start"),
        ]
        parts.append(text(690, y + 20, f"{expert}, {PRICES[expert]:.2f} USD a million tokens", 11, QUIET, "start"))
    winner = max(QUALITIES, key=expected)
    parts.append(
        text(20, 240, f"auto: {winner}, the best; a tie within 0.02 would go to the cheaper.", 13, INK, "start")
    )
    within = " and ".join(near)
    parts.append(
        text(
            20, 262, f"auto:cheap: {cheap}, the cheapest of those within 0.1 of the best ({within}).", 13, INK, "start"
        )
    )
    return picture(980, 282, "The arithmetic of one decision", *parts)


def bar(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{max(width, 1):.1f}" height="14" rx="3" fill="{colour}"/>'


PICTURES = {DOCS / "guide" / "routing-steps.svg": steps, DOCS / "guide" / "routing-choice.svg": choice}

if __name__ == "__main__":
    for file, draw in PICTURES.items():
        file.write_text(draw(), "utf-8")
