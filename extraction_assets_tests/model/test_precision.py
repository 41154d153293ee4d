"""bfloat16 only where the machine multiplies it itself, and no slower than float32."""

from __future__ import annotations

import pytest
import torch

from extraction_assets.model import precision


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_f": True}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, True),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon", "amx_bf16": False}, False),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon", "amx_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_a_cpu_whose_bfloat16_is_no_faster_computes_in_float32(
    capabilities: dict[str, bool | str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    precision.multiplies_bfloat16.cache_clear()
    try:
        assert precision.multiplies_bfloat16("cpu") is expected
        with precision.products("auto", "cpu"):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == (torch.bfloat16 if expected else torch.float32)
    finally:
        precision.multiplies_bfloat16.cache_clear()
