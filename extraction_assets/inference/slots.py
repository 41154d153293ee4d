"""The key/value cache of the decoding loop: fixed slots, one sequence each, all sequences of their own length.

A page is prefilled alone into a free slot, then all active slots take their steps together; a finished slot is handed to the next page. So
no prompt is ever padded, and a page's answer does not depend on who decodes beside it beyond float rounding.
Knows nothing of pages or tokens. transformers asks a cache for `update` and, to build a mask where none is given, for its sizes; no more.
"""

from __future__ import annotations

from typing import Any

import torch


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

    def open_prefill(self, slot: int) -> None:
        """The next forward pass is the prompt of one sequence, (1, length), and goes to `slot`."""
        self._slot = slot

    def open_step(self, lengths: list[int], new: int = 1, keys: int = 1) -> torch.Tensor | None:
        """The next forward pass is `new` tokens for each of the slots 0..len(lengths)-1, which hold `lengths` tokens so far.

        What a slot has no use for it may leave behind its own end: the next step writes over it. keys: attention sees a multiple of so
        many columns, or all that there are.
        Returns the attention mask, (active, 1, new, columns) bool, or None for one token of sequences that fill the columns.
        """
        longest = max(lengths) + new
        self._slot, self._active, self._limit = None, len(lengths), min(self.capacity, -(-longest // keys) * keys)
        device = self._range.device
        self._columns = torch.tensor(lengths, device=device)[:, None] + torch.arange(new, device=device)
        if new == 1 and min(lengths) + 1 == self._limit:
            return None
        return (self._range[: self._limit] <= self._columns[:, :, None])[:, None]

    def open_fixed_step(self, columns: torch.Tensor) -> torch.Tensor:
        """As open_step for all slots, in shapes that do not depend on lengths, and without a copy from the host.

        columns: (slots, new) int64 on the device, where each slot's tokens go. Returns the mask, (slots, 1, new, capacity) bool.
        """
        self._slot, self._active, self._limit = None, len(columns), self.capacity
        self._columns = columns
        return (self._range <= columns[:, :, None])[:, None]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of one slot over another."""
        self._keys[:, target, :, :length] = self._keys[:, source, :, :length]
        self._values[:, target, :, :length] = self._values[:, source, :, :length]

    # --- what transformers calls -----------------------------------------------------------------------------------------

    def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Store keys and values, (sequences, key_value_heads, new, head_dim), and return all that attention may look at."""
        if self._slot is not None:
            self._keys[layer, self._slot, :, : keys.shape[2]] = keys[0]
            self._values[layer, self._slot, :, : values.shape[2]] = values[0]
            return keys, values
        rows = self._rows[: self._active, None]
        own_keys, own_values = self._keys[layer], self._values[layer]
        own_keys[rows, :, self._columns] = keys.transpose(1, 2)
        own_values[rows, :, self._columns] = values.transpose(1, 2)
        return own_keys[: self._active, :, : self._limit], own_values[: self._active, :, : self._limit]

    def get_seq_length(self, layer: int = 0) -> int:
        return 0  # positions are always given, so this only says that a prefill starts empty

    def get_query_offset(self, layer: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer: int = 0) -> tuple[int, int]:
        return query_length, 0
