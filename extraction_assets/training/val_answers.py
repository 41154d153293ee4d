"""Answers during training: how a sample of val comes out of the model as it stands, in the very loop that inference runs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import cast

import torch
from transformers import Qwen3VLForConditionalGeneration

from extraction_assets.errors import InputError
from extraction_assets.evaluation.scoring import score_document
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.model.attention import stock_attention
from extraction_assets.model.examples import Example
from extraction_assets.model.sharding import comes_together_for_each_pass, gathered
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import DecodingSettings
from extraction_assets.training.setup import Run
from extraction_assets.wire import gold


@dataclass(frozen=True)
class AnswerRates:
    """Rates of free answers, no grammar holding them: what the model has learnt by itself."""

    pages: int
    strict_json: float
    """share of answers that are strict JSON"""
    field_accuracy: float
    """header fields right of all header fields; an answer that is not strict JSON has none right but the absent ones"""

    def line(self) -> str:
        return f"{self.pages} val pages answered: strict JSON {self.strict_json:.3f}, fields right {self.field_accuracy:.3f}"


def answer_val(run: Run) -> AnswerRates | None:
    """Answer and score the run's sample of val; every process answers a part of it. None: settings ask for no answers.

    Raises InputError if the job does not bring the schema of one of these pages.
    """
    sample = _sample([example for example, _ in run.val.examples], run.job.settings.val_answers, run.job.seed)
    if not sample:
        return None
    accelerator = run.accelerator
    if comes_together_for_each_pass(run.adapter):  # so all answer the same pages, token by token
        strict, right, fields = _score(run, sample)
        return _rates(len(sample), strict, right, fields)
    own = sample[accelerator.process_index :: accelerator.num_processes]
    with gathered(run.adapter):  # answers have unequal lengths: nobody can wait for the others at each token
        counts = torch.tensor(_score(run, own) if own else (0, 0, 0), device=accelerator.device)
    return _rates(len(sample), *accelerator.reduce(counts, "sum").tolist())


def _rates(pages: int, strict: int, right: int, fields: int) -> AnswerRates:
    return AnswerRates(pages, strict / pages, right / fields if fields else 1.0)


def _sample(examples: list[Example], count: int, seed: int) -> list[Example]:
    """The same pages at every validation of a run."""
    return examples if len(examples) <= count else random.Random(seed).sample(examples, count)


def _score(run: Run, examples: list[Example]) -> tuple[int, int, int]:
    """(strict answers, fields right, fields)"""
    schemas = {digest: TargetSchema(document, digest) for digest, document in run.job.schemas.items()}
    # the closing token is one more
    decoding = DecodingSettings(max_output_tokens=run.job.settings.max_target_tokens + 1, constrained=False)
    prompts = [PagePrompt.of(example, _schema(schemas, example)) for example in examples]
    model = cast(Qwen3VLForConditionalGeneration, run.adapter.get_base_model())
    was_training = model.training
    model.eval()
    with stock_attention(model):
        answers = Answerer(model, run.base_format).answer(prompts, decoding)
    model.train(was_training)
    scores = [
        score_document(answer.text, gold(schema, example.target), schema, finish_reason=answer.finish_reason)
        for example, answer in zip(examples, answers, strict=True)
        for schema in [_schema(schemas, example)]
    ]
    return sum(s.strict_json for s in scores), sum(s.right_fields for s in scores), sum(len(s.fields) for s in scores)


def _schema(schemas: dict[str, TargetSchema], example: Example) -> TargetSchema:
    try:
        return schemas[example.schema]
    except KeyError:
        remedy = "Make the job with the schemas of its val split, or set training.val_answers: 0"
        raise InputError(f"example {example.id}", f"the job does not bring its schema {example.schema[:12]}", do=remedy) from None
