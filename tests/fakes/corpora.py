"""A small made-up corpus of four domains that no encoder confuses."""

from __future__ import annotations

from router.dataset import Row

PATTERNS = {
    "code": "Fix the {} in my Python function",
    "math": "Prove a theorem about {}",
    "bio": "What do cells and tissues do with {}?",
    "general": "Write a cheerful birthday poem about {}",
}
THINGS = {
    "code": "import loop index type list bug class regex thread socket query cache parser test merge branch",
    "math": "primes rings limits graphs groups angles matrices integrals series sets knots fields curves sums ratios",
    "bio": "enzymes viruses proteins sugar iron lipids genes hormones bacteria oxygen toxins insulin plasma spores",
    "general": "grandma autumn cheese trains Lisbon candles rain tulips pancakes jazz snow kites tea bridges",
}


def prompts(domain: str) -> list[str]:
    """Some 15 prompts of the domain."""
    return [PATTERNS[domain].format(thing) for thing in THINGS[domain].split()]


def small_corpus(*domains: str) -> list[Row]:
    """Some 15 rows a domain, of all four where none is named."""
    return [Row(prompt, domain) for domain in domains or PATTERNS for prompt in prompts(domain)]


def trained_on(domain: str, count: int) -> list[Row]:
    """So many rows of `domain`, none of them held out."""
    rows = (Row(f"{prompt}, {i}", domain) for i in range(count) for prompt in prompts(domain))
    return [row for row in rows if not row.held_out][:count]


def numbered_corpus(times: int) -> list[Row]:
    """The small corpus so many times over, each time with another number at the end of its prompts."""
    return [Row(f"{row.text}, {i}", row.domain) for i in range(times) for row in small_corpus()]
