"""A base of the embedded one's shape with Qwen's own vocabulary of 151,936 tokens, and what a grammar costs it.

The ranks of Qwen's BPE come with the PyPI package dashscope (pip install --no-deps dashscope; only its file qwen.tiktoken is read). Weights,
the embedding among them, are random: what a mask costs does not ask what they say. Random text is harder on it than real answers are.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3VLForConditionalGeneration

from extraction_assets.demo.tiny_base import SPECIAL_TOKENS, model_config, write_model, write_processor, write_tokenizer
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.grammar import Grammar
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.inference.vocabulary import Vocabulary
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import DecodingSettings

LOGITS = 151_936
_FIRST_SPECIAL = 151_643
_BETWEEN = [f"<|{name}_{end}|>" for name in ("object_ref", "box", "quad") for end in ("start", "end")]
"""special tokens of Qwen's that the embedded base does without: ids have no gaps"""
_SPECIAL = (*SPECIAL_TOKENS[:3], *_BETWEEN, *SPECIAL_TOKENS[3:])
_SPECIAL_IDS = {token: _FIRST_SPECIAL + number for number, token in enumerate(_SPECIAL)}


def ranks_file() -> Path | None:
    """None: dashscope is not installed. It is looked for, not imported."""
    found = importlib.util.find_spec("dashscope")
    folder = Path(found.origin).parent if found and found.origin else None
    path = folder / "resources" / "qwen.tiktoken" if folder else None
    return path if path and path.is_file() else None


def write_qwen_base(folder: Path, ranks: Path) -> None:
    """A whole checkpoint folder: Qwen's vocabulary, and random weights of the embedded base's shape around it."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, ranks)
    write_processor(folder)
    config = model_config("demo")
    text: Any = config.text_config
    text.vocab_size = LOGITS
    text.bos_token_id = text.pad_token_id = _SPECIAL_IDS["<|endoftext|>"]
    text.eos_token_id = _SPECIAL_IDS["<|im_end|>"]
    config.image_token_id, config.video_token_id = _SPECIAL_IDS["<|image_pad|>"], _SPECIAL_IDS["<|video_pad|>"]
    config.vision_start_token_id = _SPECIAL_IDS["<|vision_start|>"]
    torch.manual_seed(0)
    write_model(Qwen3VLForConditionalGeneration(config), folder)


def tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)  # type: ignore[no-any-return]


def _write_tokenizer(folder: Path, ranks: Path) -> None:
    """Everything but the vocabulary is as in the embedded base, which follows Qwen's tokenizer in it."""
    write_tokenizer(folder, "demo")
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    rank_of = {base64.b64decode(token): int(rank) for token, rank in map(str.split, ranks.read_text(encoding="ascii").splitlines())}
    pairs = (_halves(token, rank, rank_of) for token, rank in sorted(rank_of.items(), key=lambda item: item[1]) if len(token) > 1)
    told["model"]["vocab"] = {_printable(token): rank for token, rank in rank_of.items()}
    told["model"]["merges"] = [[_printable(left), _printable(right)] for left, right in pairs]
    like = told["added_tokens"][0]
    told["added_tokens"] = [{**like, "content": token, "id": number} for token, number in _SPECIAL_IDS.items()]
    path.write_text(json.dumps(told, ensure_ascii=False), encoding="utf-8")


def _halves(token: bytes, rank: int, rank_of: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that BPE merges last on its way to this one."""
    parts = [bytes([byte]) for byte in token]
    while len(parts) > 2:
        at = min(range(len(parts) - 1), key=lambda index: rank_of.get(parts[index] + parts[index + 1], rank))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _printable(token: bytes) -> str:
    return "".join(_letters()[byte] for byte in token)


@functools.cache
def _letters() -> dict[int, str]:
    """byte -> the letter that byte-level BPE writes for it: itself where it is printable, else one from 256 on."""
    letters = set(ByteLevel.alphabet())
    own = {byte: chr(byte) for byte in range(256) if chr(byte) in letters}
    others = itertools.count(256)
    return {byte: own.get(byte) or chr(next(others)) for byte in range(256)}


@dataclass(frozen=True)
class GrammarCost:
    compile_ms: float
    """of the slowest schema, median of five"""
    share: float
    """of the time of all decoding steps, page after page"""
    ms_per_choice: float
    """mask, its application, forced tokens and the matcher's state"""
    ms_per_pass: float
    """a whole step"""


def grammar_cost(answerer: Answerer, schemas: Sequence[TargetSchema], pages: Sequence[PagePrompt], most: int) -> GrammarCost:
    """pages: held to a schema each, one answered after the other. most: output tokens."""
    vocabulary = Vocabulary.of(answerer._base_format)
    compiled = [statistics.median(_seconds(Grammar, schema, vocabulary) for _ in range(5)) for schema in schemas]
    settings = DecodingSettings(max_output_tokens=most, batch_size=1)
    answerer.answer(pages[:1], settings)  # warms up, and does not count
    with _timed(answerer) as spent:
        answers = answerer.answer(pages, settings)
    passes = sum(answer.passes - 1 for answer in answers)  # the prefill is none of them
    return GrammarCost(
        1000 * max(compiled),
        spent["grammar"] / spent["steps"],
        1000 * spent["grammar"] / spent["choices"],
        1000 * spent["steps"] / passes,
    )


def _seconds(call: Any, *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


@contextmanager
def _timed(answerer: Answerer) -> Iterator[dict[str, float]]:
    """Inside, seconds of steps, and of what they do more than choose the most probable of all tokens."""
    spent = {"grammar": 0.0, "steps": 0.0, "choices": 0.0}
    choose, step = answerer._choose, answerer._step
    bare_in_step = 0.0

    def bare_choice(logits: torch.Tensor) -> None:
        logits = logits.float()
        norms = torch.logsumexp(logits, dim=-1)
        best, tokens = logits.max(dim=-1)
        torch.exp(best - norms).tolist(), tokens.tolist()

    def timed_choose(sequences: Any, logits: torch.Tensor) -> None:
        nonlocal bare_in_step
        bare_choice(logits)  # once for nothing: the logits come out of the matrix product into another cache
        again = _seconds(bare_choice, logits)
        bare_in_step += 2 * again
        spent["grammar"] += _seconds(choose, sequences, logits) - again
        spent["choices"] += len(sequences)

    def timed_step(*arguments: Any) -> None:
        nonlocal bare_in_step
        bare_in_step = 0.0
        spent["steps"] += _seconds(step, *arguments) - bare_in_step

    with mock.patch.object(answerer, "_choose", timed_choose), mock.patch.object(answerer, "_step", timed_step):
        yield spent
