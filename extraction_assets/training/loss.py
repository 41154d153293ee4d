"""The loss: cross entropy over response tokens only, as a sum, so that any division into packs gives the same mean."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from extraction_assets.model.packing import Pack


def response_loss(model: nn.Module, pack: Pack) -> torch.Tensor:
    """Sum of the cross entropies of the pack's response tokens, () float32: that of its pages run alone.

    Logits are computed only where a response token follows: (1, response tokens, vocabulary) instead of (1, tokens, vocabulary). The
    places come as indices, not as a mask: nothing has to be counted on the device. A model with a narrowed last layer (model.last_layer)
    computes that layer there only, too.
    """
    logits = model(**pack.inputs, **pack.tail_inputs, logits_to_keep=pack.response_at).logits
    return functional.cross_entropy(logits[0].float(), pack.response, reduction="sum")


def exploding_since(losses: Sequence[float]) -> int | None:
    """The step (1 is the first) at which the losses of a run so far, one a step, began to explode; None where they do not.

    Measured against the first, that of weights that have learnt nothing yet: three in a row of more than twice as much, or one of ten times
    as much. 1 nat is added to the first, which is next to nothing where a champion learns on. One hard batch is no explosion; a language
    model that has come apart stays near the entropy of its tokens, some 7 nats for a vocabulary of 150,000.
    """
    level = losses[0] + 1
    rising = 0
    for loss in reversed(losses):
        if loss <= 2 * level:
            break
        rising += 1
    return len(losses) - rising + 1 if rising >= 3 or losses[-1] > 10 * level else None


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Of optimizer step `step` (1 is the first): linear over the warm-up to the peak, then half a cosine, 0 after the last step."""
    if step <= warmup_steps:
        return peak * step / warmup_steps
    done = (step - 1 - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))
