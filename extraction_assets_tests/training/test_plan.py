from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import Qwen3VLConfig

from extraction_assets.errors import InputError
from extraction_assets.model.base import load_base, load_base_format
from extraction_assets.model.encoding import PageEncoder
from extraction_assets.model.examples import read_examples
from extraction_assets.model.lora import add_lora, audit_lora
from extraction_assets.model.recompute import LEVELS
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.arithmetic import ModelShape
from extraction_assets.training.machines import Machine, machine_named
from extraction_assets.training.order import global_batches
from extraction_assets.training.packs import shares
from extraction_assets.training.plan import TrainingPlan, estimate, plan_training, split_lengths
from extraction_assets.training.plan_card import plan_card
from extraction_assets_tests.training.conftest import SETTINGS, Data

CONFIG_8B = Qwen3VLConfig(
    text_config={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    vision_config={"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096},
    tie_word_embeddings=False,
)


def test_counts_are_those_of_the_encoded_examples_and_no_image_is_opened(data: Data, encoder: PageEncoder, tmp_path: Path) -> None:
    moved = tmp_path / "train.jsonl"
    moved.write_bytes(data.train.read_bytes())  # its page images are not here
    plan = plan_training(moved, data.val, data.base, SETTINGS)
    texts = [encoder.text(e.width, e.height, e.instruction, e.target) for e in read_examples(data.train)]
    assert plan.train.examples == 10
    assert plan.train.tokens == sum(t.tokens for t in texts)
    assert plan.train.visual_tokens == sum(t.rows * t.columns for t in texts)
    assert plan.train.response_tokens == sum(len(t.labels[t.labels >= 0]) for t in texts)
    assert plan.train.longest == max(t.tokens for t in texts)
    assert (plan.steps_per_epoch, plan.steps, plan.warmup_steps, plan.accumulation) == (3, 9, 2, 2)
    assert plan.packing.room == 2 * plan.train.longest


def test_a_plan_is_the_same_twice_and_survives_json(data: Data) -> None:
    plan = plan_training(data.train, data.val, data.base, SETTINGS)
    assert plan == plan_training(data.train, data.val, data.base, SETTINGS)
    assert TrainingPlan.model_validate_json(plan.model_dump_json()) == plan


def test_max_steps_ends_a_run_inside_an_epoch(data: Data) -> None:
    plan = plan_training(data.train, data.val, data.base, SETTINGS.model_copy(update={"max_steps": 4}))
    assert (plan.steps, plan.epochs) == (4, 2)


def test_over_length_examples_are_listed_and_left_out_or_an_error(data: Data) -> None:
    lengths = plan_training(data.train, data.val, data.base, SETTINGS).train
    skip = SETTINGS.model_copy(update={"max_target_tokens": lengths.target_p50})
    plan = plan_training(data.train, data.val, data.base, skip)
    assert plan.train.over_length
    assert plan.train.examples + len(plan.train.over_length) == 10
    assert all(e.target_tokens > lengths.target_p50 for e in plan.train.over_length)
    assert plan.train.target_max <= lengths.target_p50
    with pytest.raises(InputError, match=rf"{plan.train.over_length[0].id}: its target has \d+ tokens .*at most {lengths.target_p50}"):
        plan_training(data.train, data.val, data.base, skip.model_copy(update={"over_length": "error"}))


def test_a_split_without_a_usable_example_is_an_error(data: Data) -> None:
    with pytest.raises(InputError, match="no example to train on"):
        plan_training(data.train, data.val, data.base, SETTINGS.model_copy(update={"max_target_tokens": 1}))


def test_an_empty_val_split_is_a_plan_without_validation(data: Data, tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_text("")
    assert plan_training(data.train, tmp_path / "val.jsonl", data.base, SETTINGS).val is None


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("targets", ["attention", "attention+mlp"])
def test_parameter_formulas_are_exact(base_folder: Path, targets: str, dora: bool) -> None:
    settings = TrainingSettings(r=4, targets=targets, dora=dora)  # type: ignore[arg-type]
    base = load_base(base_folder, dtype=torch.float32)
    audit = audit_lora(add_lora(base, settings, seed=0))
    shape = ModelShape.of(base.format)
    assert shape.adapter_parameters(settings) == audit.trainable_parameters
    assert shape.language_linears + shape.other_parameters == audit.base_parameters


def test_closed_form_reproduces_the_8b_figures(data: Data) -> None:
    """Weights 16.3 / 6.7 GiB, adapters 0.65, activations 9.5 GiB a page of 1,500 tokens, 52.1 TFLOP a page (ViT 7.2, LLM forward 21.5).

    The 9.5 GiB are those of stock norms, which keep their input in fp32; ours keep it in bf16: 2 bytes less for each norm's input, of which a layer
    has two of the hidden size, and one for each query and key head. The 52.1 TFLOP are those of a whole last layer: ours spares the 1,200 tokens
    that are no response 0.89 of products (2 x 2 x 1,200 x (2 x 4,096 x 4,096 + 3 x 4,096 x 12,288)) and 0.035 of attention (3 x 2 x 4,096 x 1,200^2)."""
    named = load_base_format(data.base)
    shape, settings = ModelShape.of(replace(named, config=CONFIG_8B)), TrainingSettings()
    lora = shape.memory(settings, 2, tokens=1500, response_tokens=300, visual_tokens=1200, page_visual_tokens=1200)
    qlora = shape.memory(settings.model_copy(update={"method": "qlora"}), 2, 1500, 300, 1200, 1200)
    gib = 2**30
    assert lora.weights / gib == pytest.approx(16.3, rel=0.01)
    assert qlora.weights / gib == pytest.approx(6.7, rel=0.01)
    assert lora.adapters / gib == pytest.approx(0.65, rel=0.01)
    text = CONFIG_8B.text_config
    heads = (text.num_attention_heads + text.num_key_value_heads) * text.head_dim
    kept_in_half = 2 * 1500 * text.num_hidden_layers * (2 * text.hidden_size + heads)
    assert (lora.activations + kept_in_half) / gib == pytest.approx(9.5, rel=0.02)
    assert shape.vision_flops(1200) / 1e12 == pytest.approx(7.2, rel=0.01)
    assert shape.language_flops(1500) / 1e12 == pytest.approx(21.5, rel=0.01)
    assert shape.training_flops(1200, 1500, 300, settings) / 1e12 == pytest.approx(52.1 - 0.89 - 0.035, rel=0.005)


def test_a_plan_that_cannot_fit_says_what_to_change_and_that_change_fits(data: Data) -> None:
    plan = plan_training(data.train, data.val, data.base, SETTINGS)
    need = estimate(plan, machine_named("H100"))
    assert need.fits
    assert need.advice == ""
    small = Machine("small", need.memory.peak - 1, 1e12, 0.4, 2)
    tight = estimate(plan, small)
    assert not tight.fits
    assert "training.micro_batch: 1" in tight.advice
    changed = plan_training(data.train, data.val, data.base, SETTINGS.model_copy(update={"micro_batch": 1}))
    assert changed.packing == plan.smaller[0]
    assert estimate(changed, small).fits
    hopeless = estimate(plan, Machine("none", 1000, 1e12, 0.4, 2))
    assert "even QLoRA with training.micro_batch: 1 and training.recompute: layers" in hopeless.advice


def test_recompute_is_advised_before_four_bits_and_where_packs_cannot_shrink(data: Data) -> None:
    plan = plan_training(data.train, data.val, data.base, SETTINGS.model_copy(update={"micro_batch": 1}))
    need = {
        level: plan_training(data.train, data.val, data.base, plan.settings.model_copy(update={"recompute": level})) for level in LEVELS
    }
    peaks = {level: estimate(other, machine_named("H100")).memory.peak for level, other in need.items()}
    assert peaks["none"] > peaks["mlp"] > peaks["layers"]
    assert need["none"].flops < need["mlp"].flops < need["layers"].flops
    for level in ("mlp", "layers"):
        advice = estimate(plan, Machine("small", peaks[level], 1e12, 0.4, 2)).advice
        assert advice.endswith(f"set training.recompute: {level}")


def test_packs_of_the_plan_are_those_of_the_run(data: Data, encoder: PageEncoder, tmp_path: Path) -> None:
    job = data.job(tmp_path)
    examples, _ = split_lengths(data.train, encoder, SETTINGS, 10_000)
    texts = [text for _, text in examples]
    ids, lengths = [example.id for example, _ in examples], [text.tokens for text in texts]
    batches = list(global_batches(ids, job.seed, SETTINGS.effective_batch, job.plan.steps))
    steps = [shares(batch.rows, lengths, job.plan.packing.room)[0] for batch in batches]
    packs = [pack for step in steps for pack in step]
    packing = job.plan.packing
    assert [sorted(row for pack in step for row in pack) for step in steps] == [sorted(batch.rows) for batch in batches]
    assert packing.most_per_step == job.plan.accumulation == max(map(len, steps))
    assert packing.packs_per_step == len(packs) / 9
    assert packing.tokens == max(sum(lengths[row] for row in pack) for pack in packs) <= packing.room
    assert packing.response_tokens == max(sum(texts[row].response_tokens for row in pack) for pack in packs)
    assert packing.visual_tokens == max(sum(texts[row].rows * texts[row].columns for row in pack) for pack in packs)
    assert packing.full == pytest.approx(3 * sum(lengths) / (len(packs) * packing.room))


def test_a_room_in_tokens_takes_the_place_of_micro_batch(data: Data) -> None:
    longest = plan_training(data.train, data.val, data.base, SETTINGS).train.longest
    settings = SETTINGS.model_copy(update={"pack_tokens": 3 * longest})
    plan = plan_training(data.train, data.val, data.base, settings)
    assert [packing.room for packing in (plan.packing, *plan.smaller)] == [3 * longest, 3 * longest // 2, longest]
    assert plan.packing.setting == f"training.pack_tokens: {3 * longest}"
    need = estimate(plan, machine_named("H100"))
    tight = estimate(plan, Machine("small", need.memory.peak - 1, 1e12, 0.4, 2))
    assert f"training.pack_tokens: {3 * longest // 2}" in tight.advice


def test_an_example_longer_than_the_room_travels_alone_and_is_planned_for(data: Data) -> None:
    plan = plan_training(data.train, data.val, data.base, SETTINGS.model_copy(update={"pack_tokens": 1}))
    assert plan.accumulation == 4
    assert plan.packing.tokens == plan.train.longest
    assert plan.packing.full == 1


@pytest.mark.parametrize(
    ("figures", "memory", "tflops"), [("48GB:362", 48e9, 362), ("24gib:125.5TFLOP/s", 24 * 2**30, 125.5), ("80000000000B:989", 80e9, 989)]
)
def test_a_gpu_can_be_told_by_its_figures(figures: str, memory: float, tflops: float) -> None:
    machine = machine_named(figures)
    assert (machine.memory, machine.flops) == (memory, tflops * 1e12)
    named = machine_named("H100")
    assert machine_named("80GB:989") == replace(named, name="a GPU of 80 GB and 989 TFLOP/s")


@pytest.mark.parametrize("figures", ["48", "48GB", "48GB:", ":362", "-48GB:362", "48GB:0", "1000:362B", "100B:362", "nanGB:1"])
def test_figures_of_no_gpu_are_one_line(figures: str) -> None:
    with pytest.raises(InputError, match=r"--gpu: .*48GB:362"):
        machine_named(figures)


def test_unknown_gpu_is_one_line() -> None:
    with pytest.raises(InputError, match="unknown GPU 'B9000'; expected one of L4"):
        machine_named("B9000")


def test_an_estimate_is_json(data: Data) -> None:
    plan = plan_training(data.train, data.val, data.base, SETTINGS)
    report = json.loads(json.dumps(estimate(plan, machine_named(None)).to_json()))
    assert report["machine"] == "this CPU"
    assert report["memory"]["peak"] > report["memory"]["weights"] > 0
    assert report["hours"] > 0


def test_the_card_says_how_many_packs_a_step_takes_and_how_full_they_are(data: Data) -> None:
    plan = plan_training(data.train, data.val, data.base, SETTINGS)
    packing = plan.packing
    row = f"| packs a step | {packing.packs_per_step:.1f} of {packing.room} tokens (training.micro_batch: 2), {packing.full:.0%} full |"
    assert row in plan_card(plan).splitlines()
