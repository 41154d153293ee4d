from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image

from extraction_assets.errors import InputError
from extraction_assets.model.base import Base, PageFormat
from extraction_assets.model.encoding import IGNORED, PageEncoder, collate, patchify, pixel_levels, read_page
from extraction_assets_tests.model.pages import page_png

INSTRUCTION = "Extract as JSON: number"
TARGET = '{"number":"R-17/ä","total":null}'


@pytest.mark.parametrize(("width", "height"), [(32, 32), (96, 64), (64, 160), (256, 224)])
def test_pixel_values_are_the_stock_processors_bit_for_bit(base: Base, encoder: PageEncoder, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stock = base.format.processor(
        images=[Image.fromarray(pixels)], return_tensors="np", size={"shortest_edge": 1024, "longest_edge": 2**24}
    )
    ours = encoder.patches(pixels)
    assert ours.dtype == stock["pixel_values"].dtype
    assert np.array_equal(ours, stock["pixel_values"])
    assert stock["image_grid_thw"].tolist() == [[1, height // 16, width // 16]]


def test_pixel_values_follow_mean_and_std_per_channel() -> None:
    pages = PageFormat(16, 2, 2, 1 / 255, (0.48, 0.45, 0.40), (0.26, 0.25, 0.27))
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    stock = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        image_mean=list(pages.mean),
        image_std=list(pages.std),
        size={"shortest_edge": 1024, "longest_edge": 2**24},
    )
    pixels = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    wanted = stock(images=[Image.fromarray(pixels)], return_tensors="np")["pixel_values"]
    assert np.array_equal(patchify(pixels, pages, pixel_levels(pages)), wanted)


def test_prompt_is_the_checkpoints_chat_template(base: Base, encoder: PageEncoder) -> None:
    text = encoder.text(96, 64, INSTRUCTION)
    tokenizer = base.format.tokenizer
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": INSTRUCTION}]}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True).replace("<|image_pad|>", "<|image_pad|>" * 6)
    assert text.input_ids.tolist() == tokenizer.encode(rendered, add_special_tokens=False)
    assert text.tokens == text.prompt_tokens


def test_labels_are_the_target_and_its_end_and_nothing_else(encoder: PageEncoder) -> None:
    text = encoder.text(96, 64, INSTRUCTION, TARGET)
    labels = text.labels
    assert encoder.decode(labels[labels != IGNORED].tolist()) == TARGET + "<|im_end|>"
    assert (labels[: text.prompt_tokens] == IGNORED).all()
    assert text.response_tokens == (labels != IGNORED).sum()
    assert text.input_ids[: text.prompt_tokens].tolist() == encoder.text(96, 64, INSTRUCTION).input_ids.tolist()


@pytest.mark.parametrize("control", ["<|im_end|>", "<|image_pad|>", "<|im_start|>user", "<|endoftext|>"])
def test_control_tokens_spelled_by_a_vendor_stay_text(encoder: PageEncoder, control: str) -> None:
    target = f'{{"number":"{control}"}}'
    text = encoder.text(64, 64, f"Read {control} here", target)
    specials = set(encoder.tokenizer.all_special_ids)
    response = text.input_ids[text.prompt_tokens :].tolist()
    assert not specials & set(response[:-1])
    assert encoder.decode(response) == target + "<|im_end|>"
    plain = encoder.text(64, 64, "Read here", target)
    count = lambda ids: sum(token in specials for token in ids.tolist())  # noqa: E731
    assert count(text.input_ids) == count(plain.input_ids)


def test_a_target_in_decomposed_characters_is_learned_composed(encoder: PageEncoder) -> None:
    text = encoder.text(64, 64, INSTRUCTION, '{"a":"u\u0308"}')
    assert encoder.decode(text.input_ids[text.prompt_tokens : -1].tolist()) == '{"a":"\u00fc"}'


def test_positions_are_the_models_own(base: Base, encoder: PageEncoder) -> None:
    sizes = [(32, 32), (96, 64), (64, 160), (128, 128)]
    pages = [encoder.page(f"{w}x{h}", page_png(w, h, w), INSTRUCTION, TARGET) for w, h in sizes]
    batch = collate(pages, pad_token=0)
    for row, page in enumerate(pages):
        n = page.text.tokens
        own, _ = base.model.model.get_rope_index(
            batch.input_ids[row : row + 1, :n],
            mm_token_type_ids=batch.mm_token_type_ids[row : row + 1, :n],
            image_grid_thw=batch.image_grid_thw[row : row + 1],
        )
        assert torch.equal(own[:, 0], batch.position_ids[:, row, :n])


def test_padding_changes_no_page(base: Base, encoder: PageEncoder) -> None:
    pages = [encoder.page("a", page_png(64, 64, 1), INSTRUCTION, TARGET), encoder.page("b", page_png(128, 96, 2), INSTRUCTION, TARGET * 2)]

    def logits(batch_pages: list) -> torch.Tensor:
        batch = collate(batch_pages, pad_token=0)
        with torch.no_grad():
            return base.model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                pixel_values=batch.pixel_values,
                image_grid_thw=batch.image_grid_thw,
                use_cache=False,
            ).logits

    together = logits(pages)
    for row, page in enumerate(pages):
        alone = logits([page])[0]
        assert torch.allclose(together[row, : page.text.tokens], alone, atol=1e-4)


def test_an_altered_page_is_never_read(encoder: PageEncoder) -> None:
    png, other = page_png(64, 64, 1), page_png(64, 64, 2)
    digest = hashlib.sha256(png).hexdigest()
    assert encoder.page("p", png, INSTRUCTION, digest=digest).text.columns == 2
    with pytest.raises(InputError, match=r"^page 3 of acme: page image is .* as recorded"):
        encoder.page("p", other, INSTRUCTION, digest=digest, where="page 3 of acme")


@pytest.mark.parametrize(("width", "height"), [(65, 64), (64, 100), (31, 32)])
def test_a_page_off_the_grid_is_an_error_that_names_it(width: int, height: int) -> None:
    with pytest.raises(InputError, match=rf"^page 7: page image is {width} x {height} px; expected multiples of 32 px"):
        read_page(page_png(width, height, 0), "page 7")


@pytest.mark.parametrize("damage", [b"", b"not an image", "truncated"])
def test_what_is_no_image_is_an_error_that_names_it(damage: bytes | str) -> None:
    png = page_png(64, 64, 0)
    with pytest.raises(InputError, match=r"^page 7: page image cannot be read"):
        read_page(png[: len(png) // 2] if isinstance(damage, str) else damage, "page 7")


def test_grey_and_palette_pages_read_as_their_rgb_twins() -> None:
    grey = Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    for image in (grey, grey.convert("P"), grey.convert("1")):
        file = io.BytesIO()
        image.save(file, "PNG")
        assert np.array_equal(read_page(file.getvalue(), "p"), np.asarray(image.convert("RGB")))
