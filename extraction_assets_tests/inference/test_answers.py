from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from extraction_assets.errors import InputError
from extraction_assets.inference.answers import Answerer
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.model.base import Base
from extraction_assets.model.encoding import PageEncoder, collate
from extraction_assets.model.lora import add_lora, save_adapter
from extraction_assets.settings import DecodingSettings, TrainingSettings
from extraction_assets_tests.model.pages import page_png

SETTINGS = DecodingSettings(max_output_tokens=24, batch_size=4)
SIZES = [(64, 64), (96, 64), (128, 96), (32, 32), (64, 160), (96, 96), (64, 64)]


@pytest.fixture(scope="module")
def pages() -> list[PagePrompt]:
    return [PagePrompt(f"p{i}", "Extract as JSON" + "." * i, page_png(w, h, i), w, h) for i, (w, h) in enumerate(SIZES)]


@pytest.fixture(scope="module")
def answerer(base: Base) -> Answerer:
    return Answerer.of(base)


def _stepwise(base: Base, encoder: PageEncoder, page: PagePrompt, tokens: int) -> list[int]:
    """The definition of greedy: the whole sequence through the stock model for every single token, no cache, no batch."""
    assert isinstance(page.page, bytes)
    encoded = encoder.page(page.id, page.page, page.instruction)
    batch = collate([encoded], 0)
    ids, positions, out = batch.input_ids, batch.position_ids, []
    for _ in range(tokens):
        with torch.no_grad():
            logits = base.model(
                input_ids=ids, position_ids=positions, pixel_values=batch.pixel_values, image_grid_thw=batch.image_grid_thw, use_cache=False
            ).logits
        out.append(int(logits[0, -1].argmax()))
        if out[-1] == encoder.end_token:
            break
        ids = torch.cat([ids, torch.tensor([[out[-1]]])], dim=1)
        positions = torch.cat([positions, positions[:, :, -1:] + 1], dim=2)
    return out


def test_answers_are_the_stock_models_greedy_ones(base: Base, encoder: PageEncoder, answerer: Answerer, pages: list[PagePrompt]) -> None:
    answers = answerer.answer(pages[:4], SETTINGS)
    for page, answer in zip(pages[:4], answers, strict=True):
        tokens = _stepwise(base, encoder, page, SETTINGS.max_output_tokens)
        stopped = tokens[-1] == encoder.end_token
        assert answer.text == encoder.decode(tokens[:-1] if stopped else tokens)
        assert (answer.tokens, answer.finish_reason) == (len(tokens), "stop" if stopped else "length")
    assert len({answer.text for answer in answers}) == 4  # the test would prove little if all pages read the same


def test_answers_are_those_of_transformers_generate(base: Base, encoder: PageEncoder, answerer: Answerer, pages: list[PagePrompt]) -> None:
    page = pages[2]
    assert isinstance(page.page, bytes)
    batch = collate([encoder.page(page.id, page.page, page.instruction)], 0)
    out = base.model.generate(
        input_ids=batch.input_ids,
        attention_mask=torch.ones_like(batch.input_ids),
        mm_token_type_ids=batch.mm_token_type_ids,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        max_new_tokens=SETTINGS.max_output_tokens,
        do_sample=False,
    )
    new = out[0, batch.input_ids.shape[1] :].tolist()
    (answer,) = answerer.answer([page], SETTINGS)
    assert answer.text == encoder.decode(new[:-1] if new[-1] == encoder.end_token else new)


def test_answers_do_not_depend_on_batch_size_or_company(answerer: Answerer, pages: list[PagePrompt]) -> None:
    alone = [answerer.answer([page], SETTINGS)[0] for page in pages]
    for batch_size in (1, 2, 4, 16):
        together = answerer.answer(pages, DecodingSettings(max_output_tokens=24, batch_size=batch_size))
        assert [(a.id, a.text, a.tokens, a.finish_reason) for a in together] == [(a.id, a.text, a.tokens, a.finish_reason) for a in alone]
        assert [a.confidence for a in together] == pytest.approx([a.confidence for a in alone], rel=1e-3)
    backwards = answerer.answer(pages[::-1], SETTINGS)
    assert [a.text for a in backwards] == [a.text for a in alone][::-1]


def test_a_page_that_ends_early_makes_room_and_disturbs_nobody(
    base: Base, encoder: PageEncoder, answerer: Answerer, pages: list[PagePrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = answerer.answer(pages, SETTINGS)
    whole = _stepwise(base, encoder, pages[2], 24)
    stop = whole[len(whole) // 2]  # a token in the middle of one answer, now taken as an end
    monkeypatch.setattr(answerer, "_stops", frozenset([stop, answerer.encoder.end_token]))
    alone = [answerer.answer([page], SETTINGS)[0] for page in pages]
    together = answerer.answer(pages, DecodingSettings(max_output_tokens=24, batch_size=3))
    assert [a.text for a in together] == [a.text for a in alone]
    assert "stop" in {a.finish_reason for a in together}
    cut = [
        (a.text.rstrip("\ufffd"), free[i].text) for i, a in enumerate(together) if a.tokens < free[i].tokens
    ]  # perhaps inside a character
    assert cut
    assert all(whole.startswith(text) for text, whole in cut)


def test_progress_counts_every_page_once(answerer: Answerer, pages: list[PagePrompt]) -> None:
    seen: list[tuple[int, int]] = []
    answerer.answer(pages, SETTINGS, lambda done, total: seen.append((done, total)))
    assert seen == [(i, len(pages)) for i in range(1, len(pages) + 1)]


def test_no_pages_no_answers(answerer: Answerer) -> None:
    assert answerer.answer([], SETTINGS) == []


def test_confidence_is_a_probability(answerer: Answerer, pages: list[PagePrompt]) -> None:
    assert all(0 < a.confidence <= 1 for a in answerer.answer(pages, SETTINGS))


@pytest.fixture(scope="module")
def adapter(base: Base, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter with weights that matter."""
    from extraction_assets.model.base import load_base

    settings = TrainingSettings(r=4)
    model = add_lora(load_base(base_folder, dtype=torch.float32), settings, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    folder = tmp_path_factory.mktemp("adapter")
    save_adapter(model, folder)
    return folder


def test_an_adapter_changes_answers_as_in_plain_peft_and_leaves_the_base_alone(
    base: Base, encoder: PageEncoder, answerer: Answerer, adapter: Path, pages: list[PagePrompt]
) -> None:
    import copy

    from peft import PeftModel

    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    adapted = Answerer.of(base, adapter)
    answers = adapted.answer(pages[:3], SETTINGS)
    assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())
    assert [a.text for a in answers] != [a.text for a in answerer.answer(pages[:3], SETTINGS)]

    plain = PeftModel.from_pretrained(copy.deepcopy(base.model), str(adapter)).get_base_model()
    for page, answer in zip(pages[:3], answers, strict=True):
        tokens = _stepwise(Base(base.format, plain), encoder, page, SETTINGS.max_output_tokens)
        assert answer.text == encoder.decode(tokens[:-1] if tokens[-1] == encoder.end_token else tokens)


def test_a_folder_that_is_no_adapter_is_named(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        Answerer.of(base, tmp_path)


def test_an_adapter_of_another_base_is_named(base_folder: Path, adapter: Path, tmp_path: Path) -> None:
    from extraction_assets.demo.tiny_base import write_random_base
    from extraction_assets.model.base import load_base

    write_random_base(tmp_path / "other", seed=0, preset="demo")
    with pytest.raises(InputError, match="does not fit this base") as caught:
        Answerer.of(load_base(tmp_path / "other", dtype=torch.float32), adapter)
    assert "\n" not in str(caught.value)


def test_a_page_that_is_altered_missing_or_off_the_grid_is_named(answerer: Answerer, tmp_path: Path) -> None:
    png = page_png(64, 64, 1)
    wrong = PagePrompt("p9", "Read", png, 64, 64, page_digest=hashlib.sha256(b"other").hexdigest())
    with pytest.raises(InputError, match=r"page p9: page image is .* as recorded"):
        answerer.answer([wrong], SETTINGS)
    with pytest.raises(InputError, match=r"page p8 .*cannot be read"):
        answerer.answer([PagePrompt("p8", "Read", tmp_path / "absent.png", 64, 64)], SETTINGS)
    with pytest.raises(InputError, match="page p7: page image is 70 x 64 px"):
        answerer.answer([PagePrompt("p7", "Read", page_png(70, 64, 1), 70, 64)], SETTINGS)
    with pytest.raises(InputError, match="page p6: page image is 64 x 64 px; expected 96 x 64 as recorded"):
        answerer.answer([PagePrompt("p6", "Read", png, 96, 64)], SETTINGS)


def test_an_answer_that_cannot_fit_the_context_is_refused_before_any_work(answerer: Answerer, pages: list[PagePrompt], base: Base) -> None:
    room = base.format.config.text_config.max_position_embeddings
    with pytest.raises(InputError, match=rf"page p0: .* do not fit the base's {room}"):
        answerer.answer(pages, DecodingSettings(max_output_tokens=min(room, 32768)))
