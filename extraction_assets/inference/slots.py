"""The key/value cache of the decoding loop: fixed slots, one sequence each, all sequences of their own length.

A page is prefilled alone into a free slot, then all active slots take their steps together; a finished slot is handed to the next page. So
no prompt is ever padded, and a page's answer does not depend on who decodes beside it beyond float rounding.
Knows nothing of pages or tokens. transformers asks a cache for `update` and, to build a mask where none is given, for its sizes; no more.
"""

from __future__ import annotations

from typing import Any

import torch


def whole_blocks(tokens: int, block: int) -> int:
    """The next multiple of a block."""
    return -(-tokens // block) * block


class SlotCache:
    def __init__(
        self, layers: int, slots: int, key_value_heads: int, capacity: int, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        """capacity: tokens a sequence may have, prompt and answer together."""
        self.slots, self.capacity = slots, capacity
        shape = (layers, slots, key_value_heads, capacity, head_dim)
        self._keys = torch.zeros(shape, dtype=dtype, device=device)
        self._values = torch.zeros(shape, dtype=dtype, device=device)
        self._range = torch.arange(capacity, device=device)
        self._rows = torch.arange(slots, device=device)
        self._slot: int | None = None
        self._active, self._limit = 0, 0
        self._columns = self._rows
        self._token_slots: torch.Tensor | None = None

    def open_prefill(self, slot: int) -> None:
        """The next forward pass is the prompt of one sequence, (1, length), and goes to `slot`."""
        self._slot, self._token_slots = slot, None

    def open_step(self, lengths: list[int], new: int = 1) -> torch.Tensor | None:
        """The next forward pass is `new` tokens for each of the slots 0..len(lengths)-1, which hold `lengths` tokens so far.

        What a slot has no use for it may leave behind its own end: the next step writes over it.
        Returns the attention mask, (active, 1, new, longest + new) bool, or None for one token of sequences of the same length.
        """
        self._slot, self._token_slots = None, None
        self._active, self._limit = len(lengths), max(lengths) + new
        device = self._range.device
        self._columns = torch.tensor(lengths, device=device)[:, None] + torch.arange(new, device=device)
        if new == 1 and min(lengths) == max(lengths):
            return None
        return (self._range[: self._limit] <= self._columns[:, :, None])[:, None]

    def open_fixed_step(self, columns: torch.Tensor) -> torch.Tensor:
        """As open_step for all slots, in shapes that do not depend on lengths, and without a copy from the host.

        columns: (slots, new) int64 on the device, where each slot's tokens go. Returns the mask, (slots, 1, new, capacity) bool.
        """
        self._slot, self._token_slots = None, None
        self._active, self._limit = len(columns), self.capacity
        self._columns = columns
        return (self._range <= columns[:, :, None])[:, None]

    def open_packed_step(self, slots: torch.Tensor, columns: torch.Tensor, limit: int) -> torch.Tensor:
        """The next forward pass is one row of tokens of several sequences. slots, columns: (tokens,) int64, where each token goes.

        What lies behind a slot's own end the next step writes over. limit: columns that the longest may look at.
        Returns the attention mask, (1, 1, tokens, limit) in the cache's dtype: 0 up to a token's own column, and -inf.
        """
        self._slot, self._token_slots, self._columns = None, slots, columns
        mask = torch.zeros(len(columns), limit, dtype=self._keys.dtype, device=self._range.device)
        return mask.masked_fill_(self._range[:limit] > columns[:, None], float("-inf"))[None, None]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot over another."""
        self._keys[:, target, :, :length] = self._keys[:, source, :, :length]
        self._values[:, target, :, :length] = self._values[:, source, :, :length]

    # --- what transformers calls -----------------------------------------------------------------------------------------

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values, (sequences, key_value_heads, new, head_dim), and return all that attention may look at.

        In a packed step the whole cache, (slots, key_value_heads, capacity, head_dim).
        """
        if self._slot is not None:
            self._keys[layer, self._slot, :, : keys.shape[2]] = keys[0]
            self._values[layer, self._slot, :, : values.shape[2]] = values[0]
            return keys, values
        own_keys, own_values = self._keys[layer], self._values[layer]
        if self._token_slots is not None:
            own_keys[self._token_slots, :, self._columns] = keys[0].transpose(0, 1)
            own_values[self._token_slots, :, self._columns] = values[0].transpose(0, 1)
            return own_keys, own_values
        rows = self._rows[: self._active, None]
        own_keys[rows, :, self._columns] = keys.transpose(1, 2)
        own_values[rows, :, self._columns] = values.transpose(1, 2)
        return own_keys[: self._active, :, : self._limit], own_values[: self._active, :, : self._limit]

    def get_seq_length(self, layer: int = 0) -> int:
        return 0  # positions are always given, so this only says that a prefill starts empty

    def get_query_offset(self, layer: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer: int = 0) -> tuple[int, int]:
        return query_length, 0
