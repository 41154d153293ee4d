"""The forward pass of one step of the decoding loop: what the sequences have not read yet goes through the language model, over their cache.

Steps runs it as it comes; on a CPU PackedSteps does (packed_steps.py). On a GPU that is slow for one or a few sequences: a step of an 8B model
launches well over a thousand kernels from Python, which takes several times as long as reading its weights. GraphSteps therefore records the
pass as a CUDA graph, once for each of a few widths, and replays it: the same products over the same cache, in fixed shapes. Where it cannot
record, it runs them unrecorded.
Knows nothing of pages, grammars and drafts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from transformers import Qwen3VLForConditionalGeneration

from extraction_assets.inference.slots import SlotCache

MOST_AT_ONCE = 32
"""tokens that must follow are read in passes of at most so many: a batch is as wide as its widest sequence"""
MOST_SLOTS = 16
"""sequences of a recorded step; with more of them the products are long enough to hide what launching them takes"""
WIDTHS = (1, 8, MOST_AT_ONCE)
"""tokens a sequence of a recorded step; a narrower one is padded, which costs little: a step takes as long as reading the weights"""
Logits = Callable[[Sequence[int], Sequence[int]], torch.Tensor]
"""(slots, places among the tokens fed to each) -> (len(slots), vocabulary), in the weights' type"""
_log = logging.getLogger(__name__)


class Steps:
    """The passes of one loop."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, cache: SlotCache, pad: int) -> None:
        """pad: the token that fills narrower sequences."""
        self.model, self.cache, self._pad = model, cache, pad
        self._device = model.device

    def read(self, fed: Sequence[Sequence[int]], lengths: Sequence[int], positions: Sequence[int]) -> Logits:
        """Send tokens through the model, those of slots 0..len(fed)-1.

        lengths: tokens that each slot holds so far. positions: M-RoPE position of each slot's first token, the same on all three axes.
        The logits are to be asked for before the next pass.
        """
        new = max(len(tokens) for tokens in fed)
        mask = self.cache.open_step(list(lengths), new)
        padded = torch.tensor([[*tokens, *[self._pad] * (new - len(tokens))] for tokens in fed], device=self._device)
        first = torch.tensor(positions, device=self._device)
        hidden = self._hidden(padded, first[:, None] + torch.arange(new, device=self._device), mask)

        def logits(slots: Sequence[int], places: Sequence[int]) -> torch.Tensor:
            at = hidden[torch.tensor(slots, device=self._device), torch.tensor(places, device=self._device)]
            return cast(torch.Tensor, self.model.lm_head(at))

        return logits

    def _hidden(self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None, **attention: Any) -> torch.Tensor:
        """tokens, positions: (slots, new). attention: what else its function is told. Returns (slots, new, hidden)."""
        output = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(tokens),
            position_ids=positions[None].expand(3, -1, -1),
            attention_mask=mask,
            past_key_values=self.cache,
            use_cache=True,
            **attention,
        )
        return cast(torch.Tensor, output.last_hidden_state)


class GraphSteps(Steps):
    """Passes in fixed shapes: all slots, one of WIDTHS, attention over the cache's whole capacity. To be kept: recording takes a while."""

    def __init__(self, model: Qwen3VLForConditionalGeneration, cache: SlotCache, pad: int) -> None:
        super().__init__(model, cache, pad)
        self._records = self._device.type == "cuda"
        self._given: dict[int, torch.Tensor] = {}
        """width -> (3, slots, width) int64: tokens, their columns in the cache, their positions"""
        self._recorded: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        """width -> the graph, and (slots, width, vocabulary), where it leaves its logits"""

    def fits(self, slots: int, capacity: int) -> bool:
        return self.cache.slots == slots and self.cache.capacity >= capacity

    def read(self, fed: Sequence[Sequence[int]], lengths: Sequence[int], positions: Sequence[int]) -> Logits:
        width = next(width for width in WIDTHS if width >= max(len(tokens) for tokens in fed))
        unused = [0] * (self.cache.slots - len(fed))  # an unused slot reads padding into its own first columns
        ahead = range(width)
        given = torch.tensor(
            [
                [[*tokens, *[self._pad] * (width - len(tokens))] for tokens in (*fed, *[()] * len(unused))],
                [[length + step for step in ahead] for length in (*lengths, *unused)],
                [[position + step for step in ahead] for position in (*positions, *unused)],
            ]
        )
        if width not in self._given:
            self._given[width] = torch.zeros_like(given, device=self._device)
        self._given[width].copy_(given)
        out = self._replay(width)

        def logits(slots: Sequence[int], places: Sequence[int]) -> torch.Tensor:
            at = torch.tensor([slots, places]).to(self._device)
            return out[at[0], at[1]]

        return logits

    def _replay(self, width: int) -> torch.Tensor:
        if self._records and width not in self._recorded:
            self._record(width)
        if not self._records:
            return self._pass(width)
        graph, out = self._recorded[width]
        graph.replay()
        return out

    def _record(self, width: int) -> None:
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):  # what libraries set up at their first call may not be set up while recording
            self._pass(width)
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: the next page is being read meanwhile, and other threads' calls are none of this graph's
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                out = self._pass(width)
        except RuntimeError as error:
            self._records = False
            _log.warning("steps are not recorded as CUDA graphs: %s", str(error).strip().splitlines()[0])
            return
        self._recorded[width] = graph, out

    def _pass(self, width: int) -> torch.Tensor:
        """(slots, width, vocabulary). No shape depends on a length, and nothing waits for the GPU: it can be recorded."""
        tokens, columns, positions = self._given[width]
        hidden = self._hidden(tokens, positions, self.cache.open_fixed_step(columns))
        return cast(torch.Tensor, self.model.lm_head(hidden))
