"""Batches of the reading stages: pages with instruction and answer as token rows. Imports no torch: worker processes run it."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from extraction_assets.demo.base_recipe.glyph_cells import SLOTS, cell_classes, slot_of
from extraction_assets.demo.base_recipe.pages import Example, crop_example, lines_example, page_example, string_values
from extraction_assets.demo.base_recipe.papers import paper_example

NOT_SCORED = -100
MOST_ANSWER_TOKENS = 560
_VERDICTS = '":"":'
"""what stands between a key and a string, and between a key and null: a token each"""
LENGTH_STEP = 32
"""rows are padded to a multiple of so many tokens: odd lengths keep a GPU from its fast kernels"""


@dataclass(frozen=True)
class PageSize:
    width: int
    """px, multiples of 32"""
    height: int
    shows: Literal["lines", "crop", "page", "paper"]
    """loose lines; a crop of a few lines, with labels or a table or neither; a document; one as offices set them"""
    images: int
    """pages in a batch"""


_DRAW: dict[str, Callable[[random.Random, int, int], Example]] = {
    "lines": lines_example,
    "crop": crop_example,
    "page": page_example,
    "paper": paper_example,
}


@dataclass(frozen=True)
class ReadingBatch:
    pixels: NDArray[np.uint8]
    """(pages, h, w, 3), all of one size"""
    before: int
    """tokens before the image, the same in every row"""
    ids: NDArray[np.int64]
    """(pages, n_tokens) with image pads; padded on the right"""
    positions: NDArray[np.int64]
    """(3, pages, n_tokens): t, h, w of Qwen's multimodal rotary positions"""
    labels: NDArray[np.int64]
    """(pages, n_tokens): the answer and its end, NOT_SCORED elsewhere; not shifted"""
    value_tokens: NDArray[np.bool_]
    """(pages, n_tokens): those labels that are inside a string value"""
    verdicts: NDArray[np.bool_]
    """(pages, n_tokens): those labels that say whether a key has a value at all: the token behind it opens a string, or does not"""
    looking: NDArray[np.int64]
    """(k, 2): page, and place in its row, of the tokens before those that have sources on the page"""
    sources: NDArray[np.bool_]
    """(k, visual tokens of a page): where the next token is read from"""
    slots: NDArray[np.int16]
    """(k,): in which slot of its visual token the next token's first character stands; -1 where no single character is its source"""
    cells: NDArray[np.int16]
    """(k, slots of a visual token): classes of that visual token's slots"""
    chosen: NDArray[np.int64]
    classes: NDArray[np.int64]
    """slots for the glyph heads, as in GlyphBatch"""
    instructions: tuple[str, ...]
    answers: tuple[str, ...]


@functools.cache
def tokenizer_at(path: str) -> Tokenizer:
    return Tokenizer.from_file(path)


def reading_batches(tokenizer: str, sizes: tuple[PageSize, ...], seed: int, group: int, uses: int) -> list[ReadingBatch]:
    """One group is `uses` batches of one size, rows of like length together. tokenizer: path of tokenizer.json."""
    rng = random.Random(f"reading:{seed}:{group}")
    size = rng.choice(sizes)
    draw = _DRAW[size.shows]
    rows: list[tuple[Example, list[int], list[int]]] = []
    encoder = tokenizer_at(tokenizer)
    while len(rows) < size.images * uses:
        example = draw(rng, size.width, size.height)
        answer = encoder.encode(example.answer + "<|im_end|>").ids
        if len(answer) <= MOST_ANSWER_TOKENS:
            rows.append((example, encoder.encode(prompt(example.instruction, size.width, size.height)).ids, answer))
    rows.sort(key=lambda row: len(row[1]) + len(row[2]))
    batches = [_batch(encoder, rows[i * size.images : (i + 1) * size.images], size, rng) for i in range(uses)]
    rng.shuffle(batches)
    return batches


def prompt(instruction: str, width: int, height: int) -> str:
    pads = "<|image_pad|>" * (width // 32 * (height // 32))
    return f"<|im_start|>user\n<|vision_start|>{pads}<|vision_end|>{instruction}<|im_end|>\n<|im_start|>assistant\n"


def _batch(encoder: Tokenizer, rows: list[tuple[Example, list[int], list[int]]], size: PageSize, rng: random.Random) -> ReadingBatch:
    longest = -(-max(len(asked) + len(answer) for _, asked, answer in rows) // LENGTH_STEP) * LENGTH_STEP
    ids = np.full((len(rows), longest), encoder.token_to_id("<|endoftext|>"), dtype=np.int64)
    labels = np.full_like(ids, NOT_SCORED)
    inside, verdicts = np.zeros(ids.shape, dtype=np.bool_), np.zeros(ids.shape, dtype=np.bool_)
    looking: list[tuple[int, int]] = []
    sources: list[NDArray[np.bool_]] = []
    slots: list[int] = []
    cells: list[NDArray[np.int16]] = []
    page_cells = [cell_classes(example.glyphs, size.width, size.height) for example, _, _ in rows]
    for number, (example, asked, answer) in enumerate(rows):
        ids[number, : len(asked)], ids[number, len(asked) : len(asked) + len(answer)] = asked, answer
        labels[number, len(asked) : len(asked) + len(answer)] = answer
        inside[number, len(asked) : len(asked) + len(answer)] = value_mask(encoder, example.answer)
        verdicts[number, len(asked) : len(asked) + len(answer)] = np.isin(answer, encoder.encode(_VERDICTS).ids)
        for source in _token_sources(encoder, example, size):
            looking.append((number, len(asked) + source.place - 1))
            sources.append(source.tokens)
            slots.append(source.slot)
            cells.append(page_cells[number].reshape(-1, 4 * SLOTS)[source.first])
    before = int(np.argmax(ids[0] == encoder.token_to_id("<|image_pad|>")))
    positions = _positions(before, size.height // 32, size.width // 32, longest)
    classes = np.concatenate(page_cells).reshape(-1)
    glyphs, blanks = np.flatnonzero(classes > 0), np.flatnonzero(classes == 0)
    kept = np.random.default_rng(rng.getrandbits(64)).choice(blanks, min(len(blanks), len(glyphs) // 2 + 1), replace=False)
    chosen = np.concatenate([glyphs, kept])
    return ReadingBatch(
        pixels=np.stack([example.pixels for example, _, _ in rows]),
        before=before,
        ids=ids,
        positions=np.broadcast_to(positions[:, None], (3, *ids.shape)).copy(),
        labels=labels,
        value_tokens=inside,
        verdicts=verdicts,
        looking=np.array(looking, dtype=np.int64).reshape(-1, 2),
        sources=np.array(sources, dtype=np.bool_).reshape(len(looking), -1),
        slots=np.array(slots, dtype=np.int16),
        cells=np.array(cells, dtype=np.int16).reshape(len(looking), 4 * SLOTS),
        chosen=chosen,
        classes=classes[chosen].astype(np.int64),
        instructions=tuple(example.instruction for example, _, _ in rows),
        answers=tuple(example.answer for example, _, _ in rows),
    )


def _positions(before: int, rows: int, columns: int, length: int) -> NDArray[np.int64]:
    """(3, length): text counts on along all three axes, the image stands at one time and spreads over h and w."""
    tokens = rows * columns
    after = np.arange(length - before - tokens) + before + max(rows, columns)
    grid = np.stack([np.zeros(tokens), np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)]).astype(np.int64) + before
    text = np.arange(before)
    return np.concatenate([np.broadcast_to(text, (3, before)), grid, np.broadcast_to(after, (3, len(after)))], axis=1)


def value_mask(encoder: Tokenizer, answer: str) -> NDArray[np.bool_]:
    """For each token of answer + <|im_end|>: does it lie inside a string value? (Keys, punctuation and null do not count.)"""
    inside = np.zeros(len(answer) + 1, dtype=np.bool_)
    for start, end in string_values(answer):
        inside[start:end] = True
    offsets = encoder.encode(answer + "<|im_end|>").offsets
    return np.array([bool(inside[start:end].any()) if end <= len(answer) else False for start, end in offsets])


@dataclass(frozen=True)
class _Source:
    """What one token of an answer is read from."""

    place: int
    """of the token in the answer"""
    tokens: NDArray[np.bool_]
    """(visual tokens,) those that hold any of its characters"""
    first: int
    """visual token of its first character"""
    slot: int
    """slot of its first character there; -1 if that is read from more than one"""


def _token_sources(encoder: Tokenizer, example: Example, size: PageSize) -> Iterator[_Source]:
    """For each token of the answer that is read from the page, and from within its edges."""
    columns, rows = size.width // 32, size.height // 32
    for place, (start, end) in enumerate(encoder.encode(example.answer + "<|im_end|>").offsets):
        points = [points for points in example.sources[start:end] if points is not None]
        if not points:
            continue
        x, y = (np.concatenate(points) // 32).astype(int).T
        on_page = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
        if on_page.all():
            tokens = np.zeros(rows * columns, dtype=np.bool_)
            tokens[y * columns + x] = True
            yield _Source(place, tokens, int(y[0] * columns + x[0]), slot_of(*points[0][0]) if len(points[0]) == 1 else -1)
