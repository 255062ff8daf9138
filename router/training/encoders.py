"""Makes the encoders that the package ships: fine-tunes, distils and exports them. About an hour on two cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from router.dataset import Row, domains_of, examples_of
from router.training.export import DEFAULT_ENCODER, export_reader, export_static, load_sentence_transformer

TRANSFORMER, STATIC = "moe-minilm", "moe-static"

Progress = Callable[[str, int, int], None]


def make_encoders(rows: Sequence[Row], into: Path, progress: Progress, base: str = DEFAULT_ENCODER) -> dict[str, Path]:
    """Fine-tune the encoder `base` on `rows` (but for those held out), distil tables from it, and export both below `into`.

    Returns each one's name and folder. Raises MissingExtraError without the `train` extra.
    """
    model = load_sentence_transformer(base)
    from router.training.distil import lesson, static_table
    from router.training.finetune import learn_characters, load_reader, teach

    examples = [example for row in rows for example in examples_of(row) if not example.held_out]
    texts = [example.text for example in examples]
    domains = domains_of(rows)
    original = len(model.tokenizer)
    reader = load_reader(model, len(domains), progress)
    learn_characters(reader, texts, progress)
    teach(reader, examples, domains, progress, original)
    tables = static_table(lesson(reader, examples, domains, progress), progress)
    return {
        TRANSFORMER: export_reader(TRANSFORMER, reader, into),
        STATIC: export_static(STATIC, tables, into),
    }
