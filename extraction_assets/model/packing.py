"""Packing: several pages in one row, without padding, each computed as if it were alone.

Three conditions keep pages apart on stock transformers, without a warning if one is missed: position_ids of four rows
[text, time, height, width], each restarting at every page; attention_mask None; use_cache False. Pack.inputs states all three, and names
the pages to model.attention, which needs no mask at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from extraction_assets.model.encoding import IGNORED, EncodedPage


@dataclass(frozen=True)
class Pack:
    """The pages of one forward pass, end to end in one row."""

    ids: tuple[str, ...]
    lengths: tuple[int, ...]
    """tokens of each page"""
    input_ids: torch.Tensor
    """(1, tokens) int64"""
    position_ids: torch.Tensor
    """(4, 1, tokens) int64: place in the page's text, then M-RoPE's time, height and width; all restart at each page"""
    page_starts: torch.Tensor
    """(pages + 1,) int32: 0 and the running sum of lengths"""
    response_at: torch.Tensor
    """(response tokens,) int64: where the tokens stand that are followed by a response token"""
    response: torch.Tensor
    """(response tokens,) int64: the token to be predicted there"""
    tails: tuple[int, ...]
    """of each page, its tokens from the first that is followed by a response token to its last"""
    tail_at: torch.Tensor
    """(tokens of all tails,) int64: where they stand"""
    tail_starts: torch.Tensor
    """(pages + 1,) int32: 0 and the running sum of tails"""
    patches: tuple[int, ...]
    """rows of pixel_values of each page: all its patches, or 0 where model.visual_memory knows the page"""
    pixel_values: torch.Tensor
    """(patches of all pages, patch values) float32"""
    image_grid_thw: torch.Tensor
    """(pages, 3) int64: 1, patches down, patches across"""
    grids: tuple[tuple[int, int], ...]
    """the same of each page, for who must not ask the device: patches down, across"""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def inputs(self) -> dict[str, Any]:
        """Keyword arguments of the model's forward pass that keep its pages apart, on stock sdpa and on attention within pages."""
        return {
            "input_ids": self.input_ids,
            "position_ids": self.position_ids,
            "pixel_values": self.pixel_values,
            "image_grid_thw": self.image_grid_thw,
            "attention_mask": None,
            "use_cache": False,  # defaults to True, in train() too, and then stock code does not look for pages
            "page_lengths": self.lengths,
            "page_starts": self.page_starts,
        }

    @property
    def tail_inputs(self) -> dict[str, Any]:
        """Keyword arguments beside `inputs` of a pass that wants the logits of tails only (model.last_layer)."""
        return {"tails": self.tails, "tail_at": self.tail_at, "tail_starts": self.tail_starts}

    def to(self, device: torch.device) -> Pack:
        moved: dict[str, Any] = {name: _sent(value, device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **moved)


def _sent(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Without waiting for what a GPU still has to do: a copy from memory that may be paged out would."""
    return value.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else value.to(device)


def pack(pages: Sequence[EncodedPage], merge: int = 2) -> Pack:
    """Put pages into one row, in their order. merge: patches per visual token and side. Raises ValueError without a page."""
    if not pages:
        raise ValueError("a pack needs a page")
    texts = [page.text for page in pages]
    lengths = tuple(text.tokens for text in texts)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    positions = np.concatenate([np.vstack([np.arange(text.tokens), text.positions]) for text in texts], axis=1)
    labels = np.concatenate([text.labels for text in texts])
    grids = tuple((text.rows * merge, text.columns * merge) for text in texts)
    # a page begins with its prompt, so no label stands at a page's first token: nothing is predicted across pages
    labelled = np.flatnonzero(labels != IGNORED)
    tails = tuple(text.tokens - text.prompt_tokens + 1 for text in texts)
    return Pack(
        ids=tuple(page.id for page in pages),
        lengths=lengths,
        input_ids=torch.from_numpy(np.concatenate([text.input_ids for text in texts])[None]),
        position_ids=torch.from_numpy(positions[:, None].astype(np.int64)),
        page_starts=torch.from_numpy(starts.astype(np.int32)),
        response_at=torch.from_numpy(labelled - 1),
        response=torch.from_numpy(labels[labelled]),
        tails=tails,
        tail_at=torch.from_numpy(np.concatenate([np.arange(end - tail, end) for end, tail in zip(starts[1:], tails, strict=True)])),
        tail_starts=torch.from_numpy(np.concatenate([[0], np.cumsum(tails)]).astype(np.int32)),
        patches=tuple(len(page.pixel_values) for page in pages),
        pixel_values=torch.from_numpy(np.concatenate([page.pixel_values for page in pages])),
        image_grid_thw=torch.tensor([(1, *grid) for grid in grids]),
        grids=grids,
    )
