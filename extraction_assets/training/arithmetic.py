"""Closed-form parameters, FLOPs and bytes of a LoRA step on Qwen3-VL. Works from config.json alone, no weights needed.

Counted are matrix products and attention (2 FLOPs a multiply-add). The base is frozen, so its backward pass computes gradients of
activations only, as many FLOPs as its forward pass; the vision tower has no backward pass at all. The last layer is computed for response
tokens only, but for its keys and values (model.last_layer). Saved activations are what autograd keeps with model.fused and flash or sdpa
attention (without recompute checked against 9.5 GiB measured for a page of 1,500 tokens at 8B on stock transformers).
"""

from __future__ import annotations

from typing import Literal

from extraction_assets.documents.records import Record
from extraction_assets.model.base import BaseFormat
from extraction_assets.settings import TrainingSettings

NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""per weight: 4 bits, an 8-bit scale per 64 weights, and a float32 per 256 of those (double quantisation)"""
_ADAPTER_BYTES = 4 + 4 + 8
"""weight, gradient and two Adam moments in float32"""


class ModelShape(Record):
    """The numbers of a config that cost and memory depend on."""

    layers: int
    hidden: int
    query: int
    """heads x head_dim"""
    key_value: int
    """key/value heads x head_dim"""
    head_dim: int
    intermediate: int
    vocabulary: int
    tied_head: bool
    vision_depth: int
    vision_hidden: int
    vision_intermediate: int
    vision_positions: int
    patch_values: int
    """3 x temporal x patch x patch"""
    merge: int
    """patches per visual token"""
    mergers: int
    """the main one and one per deepstack layer"""

    @classmethod
    def of(cls, base: BaseFormat) -> ModelShape:
        text, vision = base.text, base.vision
        pages = base.pages
        key_value_heads = text.num_key_value_heads or text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            query=text.num_attention_heads * text.head_dim,
            key_value=key_value_heads * text.head_dim,
            head_dim=text.head_dim,
            intermediate=text.intermediate_size,
            vocabulary=text.vocab_size,
            tied_head=bool(base.config.tie_word_embeddings),
            vision_depth=vision.depth,
            vision_hidden=vision.hidden_size,
            vision_intermediate=vision.intermediate_size,
            vision_positions=vision.num_position_embeddings,
            patch_values=vision.in_channels * pages.temporal * pages.patch**2,
            merge=pages.merge**2,
            mergers=1 + len(vision.deepstack_visual_indexes),
        )

    # --- parameters ---------------------------------------------------------------------------------------------------------

    @property
    def language_linears(self) -> int:
        """weights that LoRA may sit beside, and that QLoRA keeps in 4 bits"""
        return self.layers * (2 * self.hidden * (self.query + self.key_value) + 3 * self.hidden * self.intermediate)

    @property
    def other_parameters(self) -> int:
        """embeddings, head, norms and the vision tower: never in 4 bits"""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied_head else 2)
        hv, iv, merged = self.vision_hidden, self.vision_intermediate, self.vision_hidden * self.merge
        block = 4 * hv * hv + 4 * hv + 2 * hv * iv + hv + iv + 4 * hv
        merger = merged * merged + merged + merged * self.hidden + self.hidden
        merger_norms = 2 * hv + (self.mergers - 1) * 2 * merged
        vision = self.patch_values * hv + hv + self.vision_positions * hv + self.vision_depth * block + self.mergers * merger + merger_norms
        norms = self.layers * (2 * self.hidden + 2 * self.head_dim) + self.hidden
        return embeddings + norms + vision

    def adapter_parameters(self, settings: TrainingSettings) -> int:
        sides = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)  # in + out of q, o and of k, v
        if settings.targets == "attention+mlp":
            sides += 3 * (self.hidden + self.intermediate)
        magnitudes = self._adapted_outputs(settings) if settings.dora else 0
        return self.layers * (settings.r * sides + magnitudes)

    def _adapted_outputs(self, settings: TrainingSettings) -> int:
        """outputs of a layer's adapted linears, all together"""
        attention = self.query + 2 * self.key_value + self.hidden
        return attention + (2 * self.intermediate + self.hidden if settings.targets == "attention+mlp" else 0)

    # --- FLOPs --------------------------------------------------------------------------------------------------------------

    def vision_flops(self, visual_tokens: int) -> float:
        """One page through the vision tower: full attention over its patches."""
        patches = visual_tokens * self.merge
        hv, merged = self.vision_hidden, self.vision_hidden * self.merge
        block = 2 * (4 * hv * hv + 2 * hv * self.vision_intermediate) + 4 * patches * hv
        mergers = self.mergers * visual_tokens * 2 * merged * (merged + self.hidden)
        return float(patches * (2 * self.patch_values * hv + self.vision_depth * block) + mergers)

    def language_flops(self, tokens: int) -> float:
        """One forward pass of `tokens` tokens through the language model, without its head."""
        return 2.0 * self.language_linears * tokens + self._attention_flops(tokens)

    def training_flops(self, visual_tokens: int, tokens: int, response_tokens: int, settings: TrainingSettings) -> float:
        """Forward and backward of one example."""
        others = tokens - response_tokens
        idle = 2 * self.hidden * self.query + 3 * self.hidden * self.intermediate  # of the last layer's linears
        idle_sides = 2 * (self.hidden + self.query) + (3 * (self.hidden + self.intermediate) if settings.targets == "attention+mlp" else 0)
        linears = 2.0 * (self.language_linears * tokens - idle * others)
        attention = self._attention_flops(tokens) - self._attention_flops(others) / self.layers
        forward = linears + attention
        backward = linears + 2 * attention
        adapters = 3 * 2.0 * (self.adapter_parameters(settings) * tokens - settings.r * idle_sides * others)
        head = 2 * 2.0 * self.vocabulary * self.hidden * response_tokens
        mlps = 2.0 * 3 * self.hidden * self.intermediate * (self.layers * tokens - others)
        again = {"none": 0.0, "mlp": mlps, "layers": forward}
        return self.vision_flops(visual_tokens) + forward + backward + adapters + head + again[settings.recompute]

    def _attention_flops(self, tokens: int) -> float:
        return self.layers * 2.0 * self.query * tokens * tokens  # causal: half of 4 n^2

    # --- bytes --------------------------------------------------------------------------------------------------------------

    def memory(
        self,
        settings: TrainingSettings,
        dtype_bytes: Literal[2, 4],
        tokens: int,
        response_tokens: int,
        visual_tokens: int,
        page_visual_tokens: int,
    ) -> MemoryEstimate:
        """Peak of one pack: all its tokens, and of them response and visual ones; page_visual_tokens: of its largest page.

        Attention within pages adds nothing that grows faster, but on a CPU with 16-bit products: there a page of up to 1,024 tokens keeps its
        weights, a little more than heads x tokens^2 bytes a layer, which are not counted here.
        """
        linear_bytes = NF4_BYTES if settings.method == "qlora" else dtype_bytes
        h, q, kv, i = self.hidden, self.query, self.key_value, self.intermediate
        adapts_mlp = settings.targets == "attention+mlp"
        # in the weights' dtype. keys: a norm's input and output, k and v, the key norm's input; queries: q, its norm's input, attention's
        # output, another norm's input and output; mlp: gate, act(gate), up, their product. model.fused: stock norms would keep 32 bits
        keys, queries, mlp = dtype_bytes * (2 * h + 3 * kv), dtype_bytes * (2 * h + 3 * q), dtype_bytes * 4 * i
        if not adapts_mlp:  # frozen linears need no inputs: neither that product nor the norm's output
            mlp -= dtype_bytes * (i + h)
        keys += dtype_bytes * 2 * settings.r
        queries += dtype_bytes * 2 * settings.r
        mlp += dtype_bytes * 3 * settings.r if adapts_mlp else 0
        if settings.dropout:  # each adapter drops its own copy of its input
            keys += (dtype_bytes + 1) * 2 * h
            queries += (dtype_bytes + 1) * (h + q)
            mlp += (dtype_bytes + 1) * (2 * h + i) if adapts_mlp else 0
        if settings.dora:  # what it scales: the base's output, and the sum
            keys += 2 * dtype_bytes * 2 * kv
            queries += 2 * dtype_bytes * (q + h)
            mlp += 2 * dtype_bytes * (2 * i + h) if adapts_mlp else 0
        # once in all: the last norm's input, the positions' sines and cosines, and keys and values for each of a group's heads (the
        # page-by-page kernel of the last layer)
        single = dtype_bytes * (h + 2 * self.head_dim)
        keys_last = keys + (dtype_bytes * 2 * q if q != kv else 0)
        # kept in every layer of a token; in the last, of any token and of a response token besides; for the one layer computed again
        kept, last, last_response, once = {
            "none": (keys + queries + mlp, keys_last, queries + mlp + dtype_bytes * h, 0),
            "mlp": (keys + queries, keys_last, queries + dtype_bytes * h, mlp),
            "layers": (dtype_bytes * h, dtype_bytes * h, 0, keys + queries + mlp),
        }[settings.recompute]
        head = response_tokens * self.vocabulary * (2 * dtype_bytes + 8)  # logits, their float32 copy, and both gradients
        pixels = visual_tokens * self.merge * self.patch_values * 4
        tower = page_visual_tokens * self.merge * dtype_bytes * (6 * self.vision_hidden + 2 * self.vision_intermediate)
        seen = visual_tokens * dtype_bytes * self.hidden * self.mergers
        return MemoryEstimate(
            weights=round(self.language_linears * linear_bytes + self.other_parameters * dtype_bytes),
            adapters=self.adapter_parameters(settings) * _ADAPTER_BYTES,
            activations=tokens * ((self.layers - 1) * kept + last + once + single) + response_tokens * last_response,
            head=head,
            pixels=pixels + tower + seen,
        )


class MemoryEstimate(Record):
    """Bytes at the peak of a step."""

    weights: int
    adapters: int
    """adapter weights, their gradients and the optimizer's moments"""
    activations: int
    """what the language model keeps for its backward pass"""
    head: int
    """logits of the response tokens and their gradients"""
    pixels: int
    """patches, the vision tower's largest intermediate (it runs page by page) and its outputs"""

    @property
    def peak(self) -> int:
        # the tower has run before activations pile up, but its patches stay: counting both is the safe side
        return self.weights + self.adapters + self.activations + self.head + self.pixels
