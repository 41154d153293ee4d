"""The pre-training job: computes what the stock model computes, learns, resumes exactly, and ends as a folder with a measured card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, Qwen2VLImageProcessorPil, Qwen3VLForConditionalGeneration

from extraction_assets.demo.base_recipe import checkpoint, glyph_stage, recipe
from extraction_assets.demo.base_recipe.export import export, load_heads, write_card
from extraction_assets.demo.base_recipe.measure import measure
from extraction_assets.demo.base_recipe.reading_batches import NOT_SCORED, PageSize, prompt, reading_batches, value_mask
from extraction_assets.demo.base_recipe.reading_model import answer_pages, read
from extraction_assets.demo.base_recipe.reading_stage import score_answers
from extraction_assets.demo.base_recipe.recipe import StepCounts, lean_on_neighbours, restore, start_guide, start_model, train
from extraction_assets.demo.base_recipe.trainer import Pace
from extraction_assets.demo.base_recipe.vision import patches_of, see
from extraction_assets.demo.tiny_base import write_tokenizer
from extraction_assets.errors import InputError

CPU = torch.device("cpu")
CROP = PageSize(224, 128, "crop", images=3)


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, "test")
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def model() -> Any:
    model, _ = start_model(0, "test", CPU)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3)  # far enough from zero that a wrong computation shows
    return model


def test_patches_are_those_of_the_stock_image_processor() -> None:
    pixels = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stock = Qwen2VLImageProcessorPil(
        patch_size=16,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        size={"shortest_edge": 1024, "longest_edge": 10**7},
    )
    expected = stock([page.numpy() for page in pixels], return_tensors="pt")["pixel_values"]
    assert torch.allclose(patches_of(pixels), expected, atol=1e-6)


@torch.no_grad()
def test_seeing_a_batch_is_the_stock_vision_tower(model: Any) -> None:
    patches = torch.randn(3 * 24, 3 * 2 * 256, generator=torch.Generator().manual_seed(0))
    stock = model.model.visual(patches, torch.tensor([[1, 4, 6]] * 3))
    ours = see(model.model.visual, patches, 3, 64, 96)
    assert torch.allclose(ours.merged, stock.pooler_output, atol=1e-4)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(ours.deepstack, stock.deepstack_features, strict=True))


def test_attention_starts_at_the_neighbours() -> None:
    model, _ = start_model(0, "demo", CPU)
    visual = model.model.visual
    lean_on_neighbours(visual)
    from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb_vision
    from transformers.vision_utils import get_vision_position_ids

    cos, sin = visual.rotary_pos_emb(torch.zeros(320, 192), get_vision_position_ids(torch.tensor([[1, 20, 16]]), 1, kwargs={}))
    attention = visual.blocks[0].attn
    query, key, _ = attention.qkv(torch.zeros(320, 192)).view(320, 3, 6, 32).unbind(1)
    query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
    places = torch.einsum("hd,nhd->hn", query[10 * 16 + 8], key).argmax(-1)
    assert [divmod(int(place), 16) for place in places[:4]] == [(10, 7), (10, 9), (9, 8), (11, 8)]


@torch.no_grad()
def test_reading_a_batch_is_the_stock_forward_with_its_own_positions(model: Any, tokenizer_file: Path) -> None:
    batch = reading_batches(str(tokenizer_file), (CROP,), 1, 0, 1)[0]
    ids, scored = torch.from_numpy(batch.ids), torch.from_numpy(np.flatnonzero(batch.labels != NOT_SCORED))
    pixels = torch.from_numpy(batch.pixels)
    ours = read(model, pixels, ids, torch.from_numpy(batch.positions), batch.before, scored).logits
    stock = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=torch.eq(ids, model.config.image_token_id).int(),
        pixel_values=patches_of(pixels),
        image_grid_thw=torch.tensor([[1, 8, 14]] * 3),
    ).logits.flatten(0, 1)[scored]
    assert torch.allclose(ours, stock, atol=1e-3)
    assert stock.abs().max() > 0.5


def test_labels_are_the_answer_and_its_end(tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    batch = reading_batches(str(tokenizer_file), (CROP,), 2, 0, 1)[0]
    for ids, labels, answer in zip(batch.ids, batch.labels, batch.answers, strict=True):
        kept = labels[labels != NOT_SCORED]
        assert tokenizer.decode(kept.tolist(), skip_special_tokens=False) == answer + "<|im_end|>"
        assert (ids[labels != NOT_SCORED] == kept).all()


def test_the_guide_points_at_the_visual_tokens_of_what_comes_next(tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    batch = reading_batches(str(tokenizer_file), (CROP,), 2, 0, 1)[0]
    assert len(batch.looking) == len(batch.sources) > 20
    for (page, place), sources in zip(batch.looking, batch.sources, strict=True):
        assert batch.value_tokens[page, place + 1]
        assert 1 <= sources.sum() <= 7  # a date may run over some, a character stands in one
    (first_page, first), sources = batch.looking[0], batch.sources[0]
    pixels = batch.pixels[first_page].reshape(4, 32, 7, 32, 3).transpose(0, 2, 1, 3, 4).reshape(28, -1)
    assert pixels[sources].min() < pixels.mean()  # there is ink
    assert tokenizer.decode([int(batch.ids[first_page, first + 1])])


@torch.no_grad()
def test_watched_attention_is_what_the_layer_used(model: Any, tokenizer_file: Path) -> None:
    batch = reading_batches(str(tokenizer_file), (CROP,), 1, 0, 1)[0]
    inputs = [torch.from_numpy(array) for array in (batch.pixels, batch.ids, batch.positions)]
    found = read(model, *inputs, batch.before, torch.from_numpy(np.flatnonzero(batch.labels != NOT_SCORED)), watched_layers=(0, 1))
    length = batch.ids.shape[1]
    assert [weights.shape for weights in found.attention.values()] == [(3, 2, length, length)] * 2
    for weights in found.attention.values():
        assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-4)
        assert weights.triu(1).abs().max() == 0


def test_a_stage_that_leaves_the_tower_alone_changes_no_weight_of_it(tmp_path: Path) -> None:
    before, _ = start_model(1, "test", CPU)
    after = run(tmp_path, counts=StepCounts(0, 0, 2, 0, 0, 0, 0))
    same = {name for name, value in before.state_dict().items() if torch.equal(value, after.state_dict()[name])}
    tower = {name for name in before.state_dict() if "visual." in name}
    assert tower - same <= {"model.visual.merger.linear_fc2.weight", "model.visual.merger.linear_fc2.bias"}  # levelled once
    assert "model.language_model.layers.0.mlp.up_proj.weight" not in same


def test_the_prompt_is_the_chat_template_with_the_image_spread_out(tokenizer_file: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_file.parent)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Extract as JSON: a"}]}
    template = tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    assert prompt("Extract as JSON: a", 64, 96) == template.replace("<|image_pad|>", "<|image_pad|>" * 6)


def test_only_what_is_inside_string_values_counts_as_value(tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    answer = '{"key":"4 \\"x\\"","no":null,"rows":[{"col":"Ü7"}],"lines":["ab"]}'
    tokens = tokenizer.encode(answer + "<|im_end|>").ids
    kept = [token for token, inside in zip(tokens, value_mask(tokenizer, answer), strict=True) if inside]
    assert tokenizer.decode(kept).replace('"', "").replace("\\", "") == "4 xÜ7ab"


def test_a_verdict_is_whether_a_key_has_a_value(tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    batch = reading_batches(str(tokenizer_file), (PageSize(320, 256, "paper", images=6),), 3, 0, 1)[0]
    for ids, verdicts, answer in zip(batch.ids, batch.verdicts, batch.answers, strict=True):
        spelled = [tokenizer.decode([token]) for token in ids[verdicts].tolist()]
        flat = json.dumps(json.loads(answer), separators=(",", ":"), ensure_ascii=False)
        assert spelled.count('":') == flat.count('":null')
        assert spelled.count('":"') == flat.count('":"')


@torch.no_grad()
def test_free_answers_do_not_depend_on_the_other_rows(model: Any, tokenizer_file: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    batch = reading_batches(str(tokenizer_file), (CROP,), 3, 0, 1)[0]
    pixels = torch.from_numpy(batch.pixels)
    together = answer_pages(model, tokenizer, pixels, batch.instructions, 8)
    alone = [answer_pages(model, tokenizer, pixels[i : i + 1], batch.instructions[i : i + 1], 8)[0] for i in range(3)]
    assert sum(a == b for a, b in zip(together, alone, strict=True)) >= 2  # bfloat16 may break a tie otherwise


def test_scores_of_answers_tell_shape_from_content() -> None:
    gold = ['{"a":"1","b":null,"r":[{"x":"2"},{"x":"3"}]}'] * 4
    answers = [gold[0], '{"a":"1","b":null,"r":[{"x":"9"}]}', '{"b":null,"a":"1","r":[]}', '{"a":"1"']
    scores = score_answers(answers, gold)
    assert scores == {"strict_json": 0.5, "field_exact": 0.75, "null_exact": 0.75, "cell_exact": 0.25}


def test_loose_lines_are_scored_as_cells() -> None:
    assert score_answers(['["a","b"]', "no json"], ['["a","c"]', '["q"]']) == {"strict_json": 0.5, "cell_exact": 1 / 3}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe's stages at a page or two a batch: what these tests ask does not need more."""
    for name in ("LINES", "WORDS", "CROPS", "PAGES", "PAPERS"):
        monkeypatch.setattr(recipe, name, tuple(replace(size, images=min(size.images, 2)) for size in getattr(recipe, name)[:3]))
    monkeypatch.setattr(glyph_stage, "PATCHES", 960)


def run(work: Path, stop_after: int | None = None, counts: StepCounts | None = None) -> Any:
    calls: list[int] = []

    def stop() -> bool:
        calls.append(1)
        return stop_after is not None and len(calls) >= stop_after

    pace = Pace(log_every=1, evaluate_every=10_000, stop=stop)
    model, _, _ = train(work, 1, "test", counts or StepCounts(3, 1, 1, 1, 1, 1, 1), pace, CPU)
    return model


@pytest.mark.slow
def test_a_stopped_run_continues_to_the_same_weights(tmp_path: Path) -> None:
    straight = run(tmp_path / "straight").state_dict()
    for stops in (2, 2):  # inside the first stage, then after the second's first step
        run(tmp_path / "broken", stop_after=stops)
    resumed = run(tmp_path / "broken").state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in straight.items())


@pytest.mark.slow
def test_the_loss_falls_in_the_glyph_stage(tmp_path: Path) -> None:
    run(tmp_path, counts=StepCounts(40, 0, 0, 0, 0, 0, 0))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if not line.get("evaluation")]
    assert sum(losses[-3:]) / 3 < sum(losses[:3]) / 3 - 1


@pytest.mark.slow
def test_a_run_ends_as_a_folder_that_loads_with_a_card_of_measured_figures(tmp_path: Path) -> None:
    run(tmp_path / "run", counts=StepCounts(0, 1, 1, 0, 0, 0, 0))
    model, heads, guide_heads, position = restore(tmp_path / "run", 1, "test", CPU)
    export(model, heads, guide_heads, tmp_path / "out", "test")
    measures = measure(tmp_path / "out", 5, 2, CPU)
    write_card(tmp_path / "out", {**measures, "run_seed": 1, "steps": StepCounts(0, 1, 1, 0, 0, 0, 0).walked(position)})
    loaded = Qwen3VLForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.to(torch.bfloat16))
    assert load_heads(tmp_path / "out", 64, 64).patch.weight.shape == heads.patch.weight.shape
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{measures['sizes']['512x640']['glyphs_from_patch']:.3f}" in card
    assert "glyphs 1, lines 1" in card


@pytest.mark.slow
def test_a_run_goes_on_from_an_exported_base(tmp_path: Path) -> None:
    run(tmp_path / "run", counts=StepCounts(0, 1, 1, 0, 0, 0, 0))
    model, heads, guide_heads, _ = restore(tmp_path / "run", 1, "test", CPU)
    export(model, heads, guide_heads, tmp_path / "out", "test")
    never = Pace(stop=lambda: True)
    train(tmp_path / "on", 2, "test", StepCounts(0, 0, 0, 0, 0, 0, 1), never, CPU, begin=tmp_path / "out")
    on, on_heads, on_guide, position = restore(tmp_path / "on", 2, "test", CPU)
    assert (position.stage, position.step) == ("finish", 1)
    for before, after in ((model, on), (heads, on_heads), (guide_heads, on_guide)):
        pairs = [(value, after.state_dict()[name]) for name, value in before.state_dict().items()]
        assert all(torch.allclose(a, b, rtol=1e-2, atol=1e-2) for a, b in pairs)  # rounded to bfloat16, one warm-up step further
        assert not all(torch.equal(a, b) for a, b in pairs)


def test_a_base_of_another_size_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        train(tmp_path / "run", 1, "test", StepCounts(0, 0, 0, 0, 0, 0, 1), Pace(), CPU, begin=tmp_path)
    model, heads = start_model(1, "demo", CPU)
    export(model, heads, start_guide(model, 1, CPU), tmp_path / "demo", "demo")
    with pytest.raises(InputError, match="other tensors"):
        train(tmp_path / "run", 1, "test", StepCounts(0, 0, 0, 0, 0, 0, 1), Pace(), CPU, begin=tmp_path / "demo")


def test_a_missing_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such checkpoint"):
        restore(tmp_path, 1, "test", CPU)


def test_a_killed_save_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Linear(2, 2)
    checkpoint.save(tmp_path, checkpoint.Position("glyphs", 3), {"model": layer})

    def torn(value: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, checkpoint.Position("glyphs", 4), {"model": layer})
    assert checkpoint.load(tmp_path, {"model": layer}) == checkpoint.Position("glyphs", 3)
