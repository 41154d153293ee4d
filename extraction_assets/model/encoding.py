"""Encoding a page and its target: PNG bytes + instruction (+ target) -> what Qwen3-VL reads.

One code path for training, evaluation and serving. A page is already on the 32-px grid, so nothing is resized, and the digest in
the record is checked against the bytes read. Labels are made by construction (prompt tokens, target tokens, <|im_end|>), because the chat
template marks no assistant part. Text from vendors is text: a control token spelled in it is encoded as plain characters.
"""

from __future__ import annotations

import hashlib
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from extraction_assets.documents.png import decode_png
from extraction_assets.errors import InputError
from extraction_assets.model.base import BaseFormat, PageFormat
from extraction_assets.page_budget import GRID_PX

IGNORED = -100
"""label of a token that carries no loss"""
_PATCHES_AT_ONCE = 256
_AGAIN = "Materialize page_images and the splits again"
_MARK = "\ue000instruction\ue001"  # private use: stands for the instruction while the template is taken apart


@dataclass(frozen=True)
class TextEncoding:
    """The tokens of one example. Needs the page's size only, not its pixels."""

    input_ids: npt.NDArray[np.int64]
    """(n_tokens,) prompt, visual placeholders included, then target and <|im_end|> if there is a target"""
    prompt_tokens: int
    image_start: int
    """index of the first visual token"""
    rows: int
    """visual tokens down the page"""
    columns: int
    """visual tokens across"""

    @property
    def tokens(self) -> int:
        return len(self.input_ids)

    @property
    def response_tokens(self) -> int:
        """tokens that carry loss: the target's and <|im_end|>"""
        return self.tokens - self.prompt_tokens

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(n_tokens,) IGNORED on the prompt, the token itself on the response (not shifted)."""
        labels = self.input_ids.copy()
        labels[: self.prompt_tokens] = IGNORED
        return labels

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """(3, n_tokens): M-RoPE positions in time, height and width, as the model's own get_rope_index gives them."""
        positions = np.tile(np.arange(self.tokens, dtype=np.int64), (3, 1))
        visual, start = self.rows * self.columns, self.image_start
        positions[0, start : start + visual] = start
        positions[1, start : start + visual] = start + np.repeat(np.arange(self.rows), self.columns)
        positions[2, start : start + visual] = start + np.tile(np.arange(self.columns), self.rows)
        positions[:, start + visual :] += max(self.rows, self.columns) - visual
        return positions


@dataclass(frozen=True)
class EncodedPage:
    """One example, ready to be collated."""

    id: str
    text: TextEncoding
    pixel_values: npt.NDArray[np.float32]
    """(patches, 3 * temporal * patch * patch); no rows where what the tower makes of them is known"""


@dataclass(frozen=True)
class Batch:
    """Several examples, padded on the right. Causal attention never looks right, so no attention mask is needed for exactness."""

    ids: tuple[str, ...]
    input_ids: torch.Tensor
    """(pages, length) int64"""
    labels: torch.Tensor
    """(pages, length) int64, IGNORED on prompt and padding"""
    position_ids: torch.Tensor
    """(3, pages, length) int64"""
    mm_token_type_ids: torch.Tensor
    """(pages, length) int32, 1 on visual tokens"""
    pixel_values: torch.Tensor
    """(patches of all pages, patch values) float32"""
    image_grid_thw: torch.Tensor
    """(pages, 3) int64: 1, patches down, patches across"""

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved)


class PageEncoder:
    """Encodes pages for one base."""

    def __init__(self, base: BaseFormat) -> None:
        """Raises InputError if the base's chat template does not place one image and one instruction."""
        self.tokenizer, self.pages = base.tokenizer, base.pages
        self.image_token: int = base.config.image_token_id
        end_token = self.tokenizer.convert_tokens_to_ids("<|im_end|>")
        if not isinstance(end_token, int) or end_token == self.tokenizer.unk_token_id:
            raise InputError(str(base.folder), "its tokenizer has no <|im_end|>", do="Fetch the base again")
        self.end_token = end_token
        self._template = _split_template(base)
        self._prompts: dict[str, tuple[list[int], list[int]]] = {}

    def text(self, width: int, height: int, instruction: str, target: str | None = None, where: str = "page") -> TextEncoding:
        """Tokens of one example; width and height in px.

        Raises InputError (where) if the page is off the grid or the target does not survive the tokenizer.
        """
        return self.texts([(width, height, instruction, target, where)])[0]

    def texts(self, examples: Sequence[tuple[int, int, str, str | None, str]]) -> list[TextEncoding]:
        """`text` for many examples: (width, height, instruction, target, where) each; the tokenizer runs once over all targets."""
        targets = [target for _, _, _, target, _ in examples if target is not None]
        tokens = iter(self._plain(targets) if targets else [])
        return [self._assemble(*example, next(tokens) if example[3] is not None else None) for example in examples]

    def pixels(self, png: bytes, where: str, digest: str | None = None) -> npt.NDArray[np.uint8]:
        """(height, width, 3) of a page image. Raises InputError (where): not the bytes recorded, no image, or off the grid."""
        return read_page(png, where, digest)

    def page(
        self, example_id: str, png: bytes, instruction: str, target: str | None = None, digest: str | None = None, where: str | None = None
    ) -> EncodedPage:
        """Everything from the bytes. where: what an error names (default: the id)."""
        pixels = read_page(png, where or example_id, digest)
        text = self.text(pixels.shape[1], pixels.shape[0], instruction, target, where or example_id)
        return EncodedPage(example_id, text, self.patches(pixels))

    def patches(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(height, width, 3) uint8 -> (patches, 3 * temporal * patch * patch) float32, the stock processor's values bit for bit."""
        return patchify(pixels, self.pages, self._levels)

    @cached_property
    def no_patches(self) -> npt.NDArray[np.float32]:
        """(0, 3 * temporal * patch * patch)"""
        return np.zeros((0, 3 * self.pages.temporal * self.pages.patch**2), dtype=np.float32)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @cached_property
    def _levels(self) -> npt.NDArray[np.float32]:
        return pixel_levels(self.pages)

    def _assemble(
        self, width: int, height: int, instruction: str, target: str | None, where: str, target_tokens: list[int] | None
    ) -> TextEncoding:
        _require_on_grid(width, height, where)
        rows, columns = height // GRID_PX, width // GRID_PX
        before, after = self._prompt(instruction)
        prompt = [*before, *[self.image_token] * (rows * columns), *after]
        response: list[int] = []
        if target is not None and target_tokens is not None:
            response = [*target_tokens, self.end_token]
            self._require_round_trip(response, target, where)
        return TextEncoding(np.asarray(prompt + response, dtype=np.int64), len(prompt), len(before), rows, columns)

    def _require_round_trip(self, response: list[int], target: str, where: str) -> None:
        decoded, wanted = self.decode(response), f"{target}<|im_end|>"
        # the tokenizer composes characters (NFC); that is the same text by Unicode's own definition, anything else is not
        if decoded != wanted and decoded != unicodedata.normalize("NFC", wanted):
            at = next((i for i, (a, b) in enumerate(zip(decoded, wanted, strict=False)) if a != b), min(len(decoded), len(wanted)))
            found = f"the tokenizer changes its target at character {at}: {decoded[at : at + 20]!r}"
            raise InputError(where, found, repr(wanted[at : at + 20]))

    def _prompt(self, instruction: str) -> tuple[list[int], list[int]]:
        if instruction not in self._prompts:
            before_image, between, after = self._template
            encode = self.tokenizer.encode
            head = encode(before_image, add_special_tokens=False)
            tail = [*encode(between, add_special_tokens=False), *self._plain([instruction])[0], *encode(after, add_special_tokens=False)]
            self._prompts[instruction] = (head, tail)
        return self._prompts[instruction]

    def _plain(self, texts: list[str]) -> list[list[int]]:
        """Text as text: control tokens in it are spelled out."""
        return self.tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def read_page(png: bytes, where: str, digest: str | None = None) -> npt.NDArray[np.uint8]:
    """(height, width, 3) RGB of a page image. digest: SHA-256 that the bytes must have."""
    if digest is not None and (found := hashlib.sha256(png).hexdigest()) != digest:
        raise InputError(where, f"page image is {found[:12]}...", f"{digest[:12]}... as recorded", _AGAIN)
    if (pixels := decode_png(png)) is not None:  # as page_images writes them
        _require_on_grid(pixels.shape[1], pixels.shape[0], where)
        return pixels
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            _require_on_grid(image.width, image.height, where)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises all three on damaged files
        raise InputError(where, f"page image cannot be read: {error}", "a PNG", "Materialize page_images again") from None


def pixel_levels(pages: PageFormat) -> npt.NDArray[np.float32]:
    """(3, 256): the normalised value of every byte, in the stock processor's own arithmetic (rescale in float64, normalise in float32)."""
    rescaled = (np.arange(256, dtype=np.float64) * pages.rescale).astype(np.float32)
    mean, std = np.asarray(pages.mean, dtype=np.float32), np.asarray(pages.std, dtype=np.float32)
    return (rescaled[None, :] - mean[:, None]) / std[:, None]


def patchify(pixels: npt.NDArray[np.uint8], pages: PageFormat, levels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(height, width, 3) -> (patches, 3 * temporal * patch * patch): patches in merge order (2 x 2 of a visual token side by side).

    Bytes are moved before they become floats (a quarter of the memory traffic), a look-up table replaces the arithmetic, and a few
    patches at a time stay in the processor's cache until all frames have them.
    """
    p, m, t = pages.patch, pages.merge, pages.temporal
    height, width, _ = pixels.shape
    tiles = pixels.reshape(height // (m * p), m, p, width // (m * p), m, p, 3)
    tiles = np.ascontiguousarray(tiles.transpose(0, 3, 1, 4, 6, 2, 5)).reshape(-1, 3, p * p)
    out = np.empty((tiles.shape[0], 3, t, p * p), dtype=np.float32)
    for start in range(0, len(tiles), _PATCHES_AT_ONCE):
        some = slice(start, start + _PATCHES_AT_ONCE)
        for channel in range(3):  # clip: a byte cannot leave the table, so no check
            out[some, channel] = np.take(levels[channel], tiles[some, channel], mode="clip")[:, None]
    return out.reshape(tiles.shape[0], -1)


def collate(pages: Sequence[EncodedPage], pad_token: int, merge: int = 2) -> Batch:
    """Pad on the right to the longest. Shapes: see Batch."""
    length = max(page.text.tokens for page in pages)
    input_ids = np.full((len(pages), length), pad_token, dtype=np.int64)
    labels = np.full((len(pages), length), IGNORED, dtype=np.int64)
    positions = np.zeros((3, len(pages), length), dtype=np.int64)
    types = np.zeros((len(pages), length), dtype=np.int32)
    for row, page in enumerate(pages):
        text = page.text
        n = text.tokens
        input_ids[row, :n], labels[row, :n], positions[:, row, :n] = text.input_ids, text.labels, text.positions
        types[row, text.image_start : text.image_start + text.rows * text.columns] = 1
    return Batch(
        ids=tuple(page.id for page in pages),
        input_ids=torch.from_numpy(input_ids),
        labels=torch.from_numpy(labels),
        position_ids=torch.from_numpy(positions),
        mm_token_type_ids=torch.from_numpy(types),
        pixel_values=torch.from_numpy(np.concatenate([page.pixel_values for page in pages])),
        image_grid_thw=torch.tensor([[1, page.text.rows * merge, page.text.columns * merge] for page in pages]),
    )


def _require_on_grid(width: int, height: int, where: str) -> None:
    if width <= 0 or height <= 0 or width % GRID_PX or height % GRID_PX:
        remedy = "Render it with this home's settings; pages are never resized"
        raise InputError(where, f"page image is {width} x {height} px", f"multiples of {GRID_PX} px", remedy)


def _split_template(base: BaseFormat) -> tuple[str, str, str]:
    """The checkpoint's chat template for one user turn, cut at the image and at the instruction."""
    image = str(base.tokenizer.convert_ids_to_tokens(base.config.image_token_id))
    chat: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _MARK}]}]
    rendered = base.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before, *rest = str(rendered).split(image)
    parts = rest[0].split(_MARK) if len(rest) == 1 else []
    if len(parts) != 2:
        raise InputError(str(base.folder), "its chat template does not place one image and one instruction", do="Fetch the base again")
    return before, parts[0], parts[1]
