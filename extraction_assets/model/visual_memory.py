"""What the frozen vision tower makes of a page, kept from epoch to epoch: the second time a page comes, neither its file is opened nor the tower run.

Adapters never touch the tower, so its outputs are the same at every step. Each page goes through it alone, whatever pack it comes in: what
is kept and what would be computed again are the same bits, and a resumed run ends where an undisturbed one ends.
Where it is kept, and how much of it, is model.kept_pages'. Nothing here waits for a GPU.
On a CPU the tower may run ahead of the steps, in a thread of its own: it is half of a step's products, and takes the core that a step's small
operations leave idle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from extraction_assets.model.kept_pages import KeptPage, KeptPages
from extraction_assets.model.packing import Pack
from extraction_assets.model.page_places import PagePlaces


class VisualMemory:
    def __init__(
        self,
        model: Qwen3VLForConditionalGeneration,
        kept: KeptPages,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Take the place of the model's own get_image_features and get_placeholder_mask. kept: empty, or of this very tower in this
        precision. precision: that of the passes, for pages seen ahead."""
        self._inner: Any = model.model
        self._see, self._stock_mask = self._inner.get_image_features, self._inner.get_placeholder_mask
        self._inner.get_image_features, self._inner.get_placeholder_mask = self._features, self._placeholders
        self._places = PagePlaces(self._inner.visual)
        self._kept = kept
        self._ahead: dict[str, KeptPage] = {}
        self._precision = precision
        self._pack: Pack | None = None
        self._keep = False

    def __contains__(self, page: object) -> bool:
        """Is this example's page known, so that a pack may come without its pixels?"""
        return page in self._kept

    @contextmanager
    def pages_of(self, pack: Pack, keep: bool) -> Iterator[None]:
        """Inside, a forward pass is that of `pack`. keep: its pages will come again."""
        self._pack, self._keep = pack, keep
        try:
            yield
        finally:
            self._pack = None

    def see_ahead(self, pack: Pack) -> None:
        """Run the tower for a pack whose forward pass is yet to come. May be called by another thread than the one that trains."""
        start = 0
        with torch.no_grad(), self._precision():
            for example, patches, grid in zip(pack.ids, pack.patches, pack.grids, strict=True):
                if patches:
                    self._ahead[example] = self._run(pack.pixel_values[start : start + patches], grid, {"return_dict": True})
                start += patches

    def _features(self, pixel_values: torch.Tensor, image_grid_thw: torch.Tensor, **options: Any) -> Any:
        if self._pack is None:  # not a pack: answers during training
            return self._see(pixel_values, image_grid_thw, **options)
        pages: list[KeptPage] = []
        start = 0
        for example, patches, grid in zip(self._pack.ids, self._pack.patches, self._pack.grids, strict=True):
            known = self._kept.get(example)
            if known is not None:
                pages.append(tuple(part.to(pixel_values.device, non_blocking=True) for part in known))
            else:
                pages.append(self._page(example, pixel_values[start : start + patches], grid, options))
            start += patches
        merged, *deepstack = zip(*pages, strict=True)
        return BaseModelOutputWithDeepstackFeatures(pooler_output=merged, deepstack_features=deepstack)

    def _placeholders(self, input_ids: torch.Tensor, inputs_embeds: torch.Tensor, **features: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The stock one counts placeholders on the device, and waits for the count. A pack has as many as its pages, or it is none."""
        if self._pack is None:
            masks: tuple[torch.Tensor, torch.Tensor] = self._stock_mask(input_ids, inputs_embeds=inputs_embeds, **features)
            return masks
        images, videos = (input_ids == token for token in (self._inner.config.image_token_id, self._inner.config.video_token_id))
        return images.unsqueeze(-1), videos.unsqueeze(-1)

    def _page(self, example: str, pixels: torch.Tensor, grid: tuple[int, int], options: dict[str, Any]) -> KeptPage:
        ahead = self._ahead.pop(example, None)
        page = self._run(pixels, grid, options) if ahead is None else ahead
        if self._keep:
            self._kept.put(example, page)
        return page

    def _run(self, pixels: torch.Tensor, grid: tuple[int, int], options: dict[str, Any]) -> KeptPage:
        seen = self._see(pixels, **options, **self._places.arguments(*grid, pixels.device))
        return (seen.pooler_output[0], *(part[0] for part in seen.deepstack_features))
