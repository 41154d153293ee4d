"""The loss: cross entropy over response tokens only, as a sum, so that any split into micro batches gives the same mean."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from extraction_assets.model.encoding import IGNORED, Batch


def response_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Sum of the cross entropies of the batch's response tokens, () float32.

    Logits are computed only where a label follows ((n_response, vocabulary) instead of (pages, length, vocabulary)). Padding is
    on the right and attention is causal, so no mask is passed: sdpa takes its fast path and the values are those of pages run alone.
    """
    labels = batch.labels[:, 1:]
    keep = torch.zeros_like(batch.labels, dtype=torch.bool)
    keep[:, :-1] = labels != IGNORED
    logits = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        attention_mask=None,
        use_cache=False,  # defaults to True, in train() too
        logits_to_keep=keep,
    ).logits
    return functional.cross_entropy(logits.float(), labels[labels != IGNORED], reduction="sum")


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Of optimizer step `step` (1 is the first): linear over the warm-up to the peak, then half a cosine, 0 after the last step."""
    if step <= warmup_steps:
        return peak * step / warmup_steps
    done = (step - 1 - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
