"""Where the patches of a page stand, as the vision tower asks for it: made on the host, once for each size of page.

Left to itself the tower makes it on the device from image_grid_thw and reads sizes back, some of them again in each of its blocks. On a GPU
each reading waits until all that was asked of it is done, and leaves it idle until the next thing is asked. The tower takes it as arguments
instead (transformers.vision_utils), and reads the lengths that it splits by from tensors that stay on the host.
"""

from __future__ import annotations

from typing import Any

import torch

_MOST_SIZES = 256
"""of pages, that are remembered: 0.3 MB each for a page of 1,200 visual tokens"""


class PagePlaces:
    def __init__(self, visual: Any) -> None:
        """visual: Qwen3VLVisionModel."""
        self._visual = visual
        self._known: dict[tuple[int, int, torch.device], dict[str, torch.Tensor]] = {}

    def arguments(self, rows: int, columns: int, device: torch.device) -> dict[str, torch.Tensor]:
        """Of get_image_features, for one page of rows x columns patches: image_grid_thw (1, 3) and cu_seqlens (2,) on the host,
        position_ids (patches, 2), interp_indices and interp_weights (patches, 4) on the device."""
        size = (rows, columns, device)
        if size not in self._known:
            if len(self._known) >= _MOST_SIZES:
                self._known.clear()
            self._known[size] = self._make(rows, columns, device)
        return self._known[size]

    def _make(self, rows: int, columns: int, device: torch.device) -> dict[str, torch.Tensor]:
        from transformers.vision_utils import (
            get_vision_cu_seqlens,
            get_vision_interpolation_indices_and_weights,
            get_vision_position_ids,
        )

        visual, grid = self._visual, torch.tensor([[1, rows, columns]])
        merge = visual.config.spatial_merge_size
        indices, weights = get_vision_interpolation_indices_and_weights(
            grid,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        return {
            "image_grid_thw": grid,
            "cu_seqlens": get_vision_cu_seqlens(grid),
            "position_ids": get_vision_position_ids(grid, merge).to(device),
            "interp_indices": indices.to(device),
            "interp_weights": weights.to(device),
        }
