"""Targets that no model could write under its schema's grammar: a date that is none, a value longer than maxLength.

Answers are held to that grammar, so such a target can only teach what will never be said. They are found before training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from extraction_assets.documents.records import Record
from extraction_assets.errors import InputError
from extraction_assets.inference.grammar import Grammars
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.model.base import BaseFormat
from extraction_assets.model.examples import read_examples
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import TrainingSettings


class UnwritableTarget(Record):
    """An example whose target its schema's grammar rejects."""

    id: str
    problem: str
    """character, what stands there, what may stand there"""


def unwritable_targets(
    jsonl: Path, base: BaseFormat, schemas: Mapping[str, TargetSchema], settings: TrainingSettings
) -> tuple[UnwritableTarget, ...]:
    """The split's examples to leave out. schemas: by digest; an example of another schema is not looked at.

    Raises InputError for the first one where settings.unwritable is "error", and where no grammar can keep a schema.
    """
    grammars = Grammars(Vocabulary.of(base))
    found = []
    for example in read_examples(jsonl):
        if example.schema not in schemas:
            continue
        grammar = grammars.of(schemas[example.schema])
        try:
            grammar.check_target(example.target, f"{jsonl} id {example.id}")
        except InputError as error:
            if settings.unwritable == "error":
                raise
            found.append(UnwritableTarget(id=example.id, problem=str(error)))
    return tuple(found)
