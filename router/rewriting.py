"""Changes of an experts.yaml as text: what is not changed stays as it was written, comments and all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from router.errors import ConfigError
from router.experts import LISTED_QUALITY, ExpertsFile, parse_sources
from router.sources import read_sources
from router.yamlfile import YamlFile


class _Edit(NamedTuple):
    """`text` in place of what stands from `start` to `end`, counted in characters."""

    start: int
    end: int
    text: str


def with_quality(text: str, measured: Mapping[str, Mapping[str, float]], path: Path = Path("experts.yaml")) -> str:
    """The file with other qualities: `measured` has by expert those of its domains, 0 to 1. What `text` extends is looked for
    beside `path`.

    Raises ConfigError where the file is wrong, where experts share what is to be changed, and where it stands in another file.
    """
    before = parse_sources(read_sources(path, text))
    file = YamlFile.parse(text, path.name)
    edits = [edit for expert, qualities in measured.items() for edit in _edits(file, expert, qualities, text)]
    changed = text
    for edit in sorted(edits, reverse=True):
        changed = changed[: edit.start] + edit.text + changed[edit.end :]
    _check(before, parse_sources(read_sources(path, changed)), measured, file)
    return changed


def _edits(file: YamlFile, expert: str, qualities: Mapping[str, float], text: str) -> list[_Edit]:
    node = file.node(("experts", expert, "domains"))
    if isinstance(node, SequenceNode):
        named = {str(item.value): LISTED_QUALITY for item in node.value}
        inner = ", ".join(f"{domain}: {_figure(value)}" for domain, value in ({**named, **qualities}).items())
        end = node.end_mark.index if node.flow_style else node.value[-1].end_mark.index
        return [_Edit(node.start_mark.index, end, f"{{{inner}}}")]
    if not isinstance(node, MappingNode):
        raise ConfigError([file.problem(("experts", expert, "domains"), "cannot be changed here; write it by hand")])
    edits = []
    there = {str(key.value): value for key, value in node.value}
    for domain, quality in qualities.items():
        value = there.get(domain)
        if isinstance(value, ScalarNode):
            edits.append(_Edit(value.start_mark.index, value.end_mark.index, _figure(quality)))
    added = {domain: quality for domain, quality in qualities.items() if domain not in there}
    return [*edits, *_added(node, added, text)]


def _added(node: MappingNode, added: Mapping[str, float], text: str) -> list[_Edit]:
    """Domains that the expert does not name yet, behind those that it does."""
    if not added:
        return []
    last: Node = node.value[-1][1]
    end = last.end_mark.index
    if node.flow_style:
        return [_Edit(end, end, "".join(f", {domain}: {_figure(quality)}" for domain, quality in added.items()))]
    indent = " " * node.value[0][0].start_mark.column
    line_end = text.find("\n", end)
    end = len(text) if line_end < 0 else line_end  # behind the last one's comment
    return [_Edit(end, end, "".join(f"\n{indent}{domain}: {_figure(quality)}" for domain, quality in added.items()))]


def _figure(quality: float) -> str:
    return f"{quality:.2f}".rstrip("0").rstrip(".")


def _check(
    before: ExpertsFile, after: ExpertsFile, measured: Mapping[str, Mapping[str, float]], file: YamlFile
) -> None:
    """Nothing else may have changed: two experts that share a mapping by an alias would both have."""
    for name, expert in before.experts.items():
        wanted = {**expert.domains, **{d: round(q, 2) for d, q in measured.get(name, {}).items()}}
        if after.experts[name] != expert.model_copy(update={"domains": wanted}):
            message = "shares what is to be changed with another expert by an alias; write its domains out"
            raise ConfigError([file.problem(("experts", name, "domains"), message)])
