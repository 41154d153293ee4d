"""The vision tower of Qwen3-VL on a batch of images of one size, and the heads that name glyphs in its cells.

`see` computes what `model.model.visual` computes (a test compares them), with attention over (images, heads, patches, d) at once:
the stock code runs attention image by image, which on small pages costs more than the attention itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from extraction_assets.demo.base_recipe.glyph_cells import PATCH_PX, SLOTS
from extraction_assets.demo.base_recipe.words import CHARACTERS


def patches_of(pixels: Tensor) -> Tensor:
    """(images, h, w, 3) uint8 -> (images * patches, 3 * 2 * 16 * 16) as Qwen's image processor makes them, in [-1, 1]."""
    images, height, width, _ = pixels.shape
    grid = pixels.view(images, height // 32, 2, PATCH_PX, width // 32, 2, PATCH_PX, 3)
    flat = grid.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, 3, 1, PATCH_PX * PATCH_PX)
    values = flat.to(torch.float32).mul_(2 / 255).sub_(1)
    return values.expand(-1, 3, 2, PATCH_PX * PATCH_PX).reshape(flat.shape[0], -1)


@dataclass(frozen=True)
class Seen:
    """What the tower makes of a batch of images."""

    patches: Tensor
    """(images * patches, vision hidden): the last block's output"""
    merged: Tensor
    """(images * patches / 4, text hidden): one visual token per 2 x 2 patches"""
    deepstack: list[Tensor]
    """one (images * patches / 4, text hidden) per deepstack layer"""


def see(visual: Any, patches: Tensor, images: int, height: int, width: int) -> Seen:
    """visual: a Qwen3VLVisionModel; patches: from `patches_of`, `images` pages of height x width px."""
    grid = torch.tensor([[1, height // PATCH_PX, width // PATCH_PX]], device=patches.device)
    config = visual.config
    places, weights = get_vision_interpolation_indices_and_weights(
        grid,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=config.spatial_merge_size,
        kwargs={},
    )
    kernel = visual.patch_embed.proj
    # a Conv3d whose stride is its kernel is a linear layer; some builds run it ten times slower
    hidden = functional.linear(patches, kernel.weight.view(kernel.weight.shape[0], -1), kernel.bias)
    positions = (visual.pos_embed(places) * weights[:, :, None]).sum(1)
    hidden = (hidden.view(images, -1, config.hidden_size) + positions.to(hidden.dtype)).view(-1, config.hidden_size)
    cos, sin = visual.rotary_pos_emb(hidden, get_vision_position_ids(grid, config.spatial_merge_size, kwargs={}))
    deepstack = []
    for number, block in enumerate(visual.blocks):
        hidden = hidden + _attend(block.attn, block.norm1(hidden), images, cos, sin)
        hidden = hidden + block.mlp(block.norm2(hidden))
        if number in config.deepstack_visual_indexes:
            deepstack.append(visual.deepstack_merger_list[list(config.deepstack_visual_indexes).index(number)](hidden))
    return Seen(hidden, visual.merger(hidden), deepstack)


def _attend(attention: Any, hidden: Tensor, images: int, cos: Tensor, sin: Tensor) -> Tensor:
    heads = attention.num_heads
    query, key, value = attention.qkv(hidden).view(images, -1, 3, heads, attention.head_dim).unbind(2)
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
    if (
        torch.is_grad_enabled() and hidden.device.type == "cpu"
    ):  # spelled out: the fused kernel's backward pass takes three times as long there
        scores = torch.matmul(query * attention.scaling, key.transpose(2, 3))
        mixed = torch.matmul(scores.softmax(-1), value)
    else:
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=attention.scaling)
    return attention.proj(mixed.transpose(1, 2).reshape(hidden.shape))


class GlyphHeads(nn.Module):
    """Name the character in each slot: from a patch (8 slots), and from a visual token after merging (4 x 8 slots); and say where it is.

    The second makes the merger keep all that the language model will have to read out of one vector. Without the third, nothing in
    that vector tells where on the page it stands, and a language model cannot look for what it has found. Used in training only.
    """

    def __init__(self, vision_hidden: int, text_hidden: int, width: int = 40) -> None:
        super().__init__()
        self.width = width
        self.patch_norm, self.merged_norm = nn.LayerNorm(vision_hidden), nn.LayerNorm(text_hidden)
        self.patch = nn.Linear(vision_hidden, SLOTS * width)
        self.merged = nn.Linear(text_hidden, 4 * SLOTS * width)
        self.patch_name = nn.Linear(width, len(CHARACTERS) + 1)
        self.merged_name = nn.Linear(width, len(CHARACTERS) + 1)
        self.place = nn.Linear(text_hidden, 2)

    def forward(self, seen: Seen, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """chosen: indices into the flat (patches * SLOTS) slots -> (chosen, classes) logits of either head."""
        from_patch = self.patch(self.patch_norm(seen.patches)).view(-1, self.width)[chosen]
        from_merged = self.merged(self.merged_norm(seen.merged)).view(-1, self.width)[chosen]
        return self.patch_name(from_patch), self.merged_name(from_merged)

    def place_error(self, seen: Seen, images: int, height: int, width: int) -> Tensor:
        """Mean distance, along x and y, between where visual tokens are and where they seem to be, as a share of the page."""
        rows, columns = height // 32, width // 32
        down = (torch.arange(rows, device=seen.merged.device) + 0.5) / rows
        across = (torch.arange(columns, device=seen.merged.device) + 0.5) / columns
        wanted = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1).view(-1, 2).repeat(images, 1)
        return (self.place(self.merged_norm(seen.merged)).float() - wanted).abs().mean()


def place_by_waves(visual: Any, strength: float = 0.5) -> None:
    """Start the position embeddings as sines and cosines of the place on the page: half of the entries of x, half of y.

    Drawn at random and small, as they come, they were still no more than noise after 5,000 steps of naming glyphs.
    """
    side = visual.num_grid_per_side
    place = torch.linspace(0, 1, side)
    quarter = visual.config.hidden_size // 4
    angles = place[:, None] * torch.pi * torch.linspace(0.5, side / 2, quarter)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, hidden / 2)
    grid = torch.cat([waves[None].expand(side, -1, -1), waves[:, None].expand(-1, side, -1)], dim=-1)
    with torch.no_grad():
        visual.pos_embed.weight.copy_(grid.reshape(side * side, -1) * (strength * 2**0.5))


@torch.no_grad()
def level_merger(visual: Any, seen: Seen) -> None:
    """Scale the merger's output to a root mean square of 1, measured on `seen`.

    The glyph heads normalise what they read, so it has grown to 10 by now: whatever the language model's layers add to that is lost.
    """
    scale = float(seen.merged.float().pow(2).mean().rsqrt())
    visual.merger.linear_fc2.weight.mul_(scale)
    visual.merger.linear_fc2.bias.mul_(scale)


def lean_on_neighbours(visual: Any, strength: float = 7.0) -> None:
    """Start the attention heads looking at the patch to the left, right, above, below: a glyph seldom stands inside one patch.

    Rotary positions make `q . k` of two constant vectors a function of their distance alone, so biases suffice: with the two
    fastest frequencies of an axis turned by the wished offset, the product peaks there. (The idea of starting attention as
    convolution: d'Ascoli et al. 2021, "ConViT"; Trockman and Kolter 2023, "Mimetic initialization".)
    """
    offsets = ((0, -1), (0, 1), (-1, 0), (1, 0), (0, -1), (0, 1))
    frequencies = visual.rotary_pos_emb.inv_freq
    pairs = visual.config.hidden_size // visual.config.num_heads // 2
    per_axis = len(frequencies)
    with torch.no_grad():
        for block in visual.blocks:
            heads = block.attn.num_heads
            bias = block.attn.qkv.bias.view(3, heads, -1)
            for head in range(min(heads, len(offsets))):
                for axis, offset in enumerate(offsets[head]):
                    for index in range(min(3, per_axis)):
                        first = axis * per_axis + index
                        angle = frequencies[index] * offset
                        # key at p + offset, turned by (p + offset) f, meets the query turned by p f and by offset * f more
                        bias[0, head, first], bias[0, head, first + pairs] = strength * torch.cos(angle), strength * torch.sin(angle)
                        bias[1, head, first], bias[1, head, first + pairs] = strength / 3, 0.0


def share(right: Tensor, of: Tensor) -> Tensor:
    """Of two masks: which part of the second lies in the first; 1 where the second is empty. Waits for no GPU."""
    return torch.where(of.any(), (right & of).sum() / of.sum().clamp_min(1), 1.0)
