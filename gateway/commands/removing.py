"""What else goes from an experts file with an expert: whatever refers to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.experts import ExpertsFile


@dataclass(frozen=True)
class Reference:
    """`place` is where it stands in the file, in keys and positions; `what` says it in words."""

    place: tuple[str | int, ...]
    what: str


def references(file: ExpertsFile, expert: str) -> list[Reference]:
    """All that names the expert, and the domains that nobody else serves."""
    found = [
        Reference(("experts", name, "fallbacks", place), f"a fallback of {name}")
        for name, other in file.experts.items()
        for place, fallback in enumerate(other.fallbacks)
        if fallback == expert and name != expert
    ]
    found += [Reference(("aliases", a), f"the alias {a}") for a, target in file.aliases.items() if target == expert]
    if file.router.fallback == expert:
        found.append(Reference(("router", "fallback"), "router.fallback: who answers when the router is unsure"))
    for name, domain in file.domains.items():
        if not any(name in other.domains for key, other in file.experts.items() if key != expert):
            found.append(Reference(("domains", name), f"the domain {name} and its {len(domain.examples)} examples"))
    return found


def lodgers(file: ExpertsFile, expert: str) -> list[str]:
    """The experts that answer with its worker."""
    return [name for name, other in file.experts.items() if other.upstream.worker == expert]


def without(text: str, expert: str, found: list[Reference], name: str) -> str:
    """The text of an experts file without the expert and what refers to it. Raises ConfigError."""
    from router.yamledit import without_entry, without_items, without_section
    from router.yamlfile import YamlFile

    text = without_items(text, [reference.place for reference in found if reference.place[0] != "domains"], name)
    # What stands later goes first: it may be an alias of what stands above.
    for domain in [str(reference.place[1]) for reference in reversed(found) if reference.place[0] == "domains"]:
        last = len(YamlFile.parse(text, name).data["domains"]) == 1
        text = without_section(text, "domains", name) if last else without_entry(text, "domains", domain, name)
    return without_entry(text, "experts", expert, name)
