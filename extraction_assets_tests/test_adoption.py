"""Adapters that other trainers made of an export: answered, scored, served and walked back like ours, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from extraction_assets.automation.instance import open_instance
from extraction_assets.cli import main
from extraction_assets.commands import (
    adopt_command,
    check_command,
    export_command,
    latest,
    lineage_command,
    predict_command,
    status_command,
    update_command,
)
from extraction_assets.errors import InputError
from extraction_assets.evaluation import gate
from extraction_assets.home import Home
from extraction_assets.model.base import load_base
from extraction_assets.record import Record
from extraction_assets.serving.bundle import open_bundle
from extraction_assets.settings import TrainingSettings
from extraction_assets.training.adapter import verify_adapter
from extraction_assets.training.warm_start import warm_start
from extraction_assets_tests.homes import drop_document, edit_settings, make_home

REGEX = r"^(?!.*visual).*(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$"
"""as LLaMA-Factory spells its targets where the vision tower is frozen"""


def say(line: str) -> None:
    pass


def trained_elsewhere(home: Home, folder: Path, dtype: torch.dtype = torch.bfloat16, **lora: Any) -> PeftModel:
    """What a trainer built on transformers and peft leaves: the adapter in bfloat16, files of its own beside it."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": REGEX, "task_type": "CAUSAL_LM", **lora})
    model = get_peft_model(load_base(home.base_model(), dtype=torch.float32).model, config)  # type: ignore[arg-type]
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05)
    for _, parameter in model.named_parameters():
        parameter.data = parameter.data.to(dtype)
    model.save_pretrained(str(folder))
    (folder / "training_args.bin").write_bytes(b"pickled")
    (folder / "checkpoint-7").mkdir()
    history = [{"loss": 2.5, "step": 1}, {"eval_loss": 2.0}, {"loss": 0.5, "step": 7}]
    (folder / "checkpoint-7" / "trainer_state.json").write_text(json.dumps({"global_step": 7, "epoch": 1.0, "log_history": history}))
    return model


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a plan and an export in which nothing has been trained yet."""
    home = make_home(tmp_path_factory.mktemp("adoption") / "home", {"invoice/acme": 6, "invoice/bolt": 6, "receipt/corner": 6})
    assert not update_command(home, ["training_plan"], say)[0].failures
    export_command(home, "trl", home.root / "export")
    return home


@pytest.fixture
def home(planned: Home, tmp_path: Path) -> Home:
    return Home.open(Path(shutil.copytree(planned.root, tmp_path / "home")))


@pytest.mark.slow
def test_it_is_answered_scored_served_and_walked_back_like_ours(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    theirs = trained_elsewhere(home, home.root / "export" / "output")
    assert main(["--home", str(home.root), "adopt", str(home.root / "export" / "output"), "--json"]) == 0
    printed = capsys.readouterr()
    adopted = json.loads(printed.out)
    assert "14 linears" in printed.err
    assert "trained by TRL" in printed.err
    folder = Path(adopted["path"])

    # peft reads from it what the trainer had, and it is a challenger like any other
    base = load_base(home.base_model(), dtype=torch.float32).model
    ours = PeftModel.from_pretrained(base, str(folder))
    want, found = ({name: p.float() for name, p in model.named_parameters() if "lora_" in name} for model in (theirs, ours))
    assert want.keys() == found.keys()
    assert all(torch.equal(want[name], found[name]) for name in want)
    manifest = verify_adapter(folder)
    assert (manifest.trainer, manifest.steps, manifest.first_loss, manifest.last_loss) == ("TRL", 7, 2.5, 0.5)
    assert {status.asset: status.state for status in status_command(home)[0]}["lora_adapter"] == "fresh"

    decide = gate.decide
    monkeypatch.setattr(
        "extraction_assets.assets.evaluation.decide", lambda *given, **more: dataclasses.replace(decide(*given, **more), promote=True)
    )
    assert not update_command(home, None, say)[0].failures
    assert latest(home, "lora_adapter")["adopted"] == "TRL"  # nothing was trained over it
    assert latest(home, "eval_report")["adapters"]["challenger"] == adopted["adapter"]
    bundle = latest(home, "serving_bundle")
    assert bundle["adapter"] == adopted["adapter"]
    open_bundle(home.store.folder(bundle["bundle"]))
    chain = lineage_command(home, bundle["bundle"])
    assert ("trained by", "TRL") in chain.links
    assert {row["file"].split("/")[-2] for row in chain.documents} >= {"acme", "bolt"}
    rows, refused = predict_command(home, [next(home.landing.glob("invoice/acme/*.pdf"))], "invoice", None, say)
    assert len(rows) == 1
    assert not refused
    assert main(["--home", str(home.root), "merge", "--out", str(home.root / "merged"), "--pages", "2"]) == 0
    assert not (home.store.folder(adopted["adapter"]) / "training_args.bin").exists()  # no pickle is taken along

    # damaged, it is told and left: no update could make it again
    (weights := folder / "adapter_model.safetensors").write_bytes(weights.read_bytes()[:-1])
    check, stale = check_command(home, True, say)
    assert {finding.path: finding.can_be_made_again for finding in check.findings}[folder] is False
    assert "lora_adapter" not in stale
    assert weights.is_file()


def test_a_nightly_run_does_not_go_on_from_weights_whose_settings_nobody_knows(home: Home) -> None:
    trained_elsewhere(home, home.root / "export" / "output")
    adopted = adopt_command(home, home.root / "export" / "output", None, say)
    start, why = warm_start(
        home.store,
        adopted["adapter"],
        TrainingSettings(start="champion"),
        latest(home, "training_plan")["base"],
        latest(home, "test_split")["jsonl"],
    )
    assert start is None
    assert "trained elsewhere, by TRL" in why


@pytest.mark.parametrize(
    "lora",
    [{"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj", "v_proj"]}, {"target_modules": r".*layers\.1.*up_proj"}],
    ids=["rslora", "dora", "q and v", "one layer"],
)
def test_other_shapes_of_lora_come_over_whole_and_twice_is_once(home: Home, lora: dict[str, Any]) -> None:
    theirs = trained_elsewhere(home, home.root / "export" / "output", torch.float32, **lora)
    first, second = (adopt_command(home, home.root / "export" / "output", None, say) for _ in range(2))
    assert first == second
    ours = PeftModel.from_pretrained(load_base(home.base_model(), dtype=torch.float32).model, first["path"])
    want, found = ({name: p for name, p in model.named_parameters() if "lora_" in name} for model in (theirs, ours))
    assert want.keys() == found.keys()
    assert all(torch.equal(want[name], found[name]) for name in want)
    scales = [{module.scaling["default"] for module in model.modules() if isinstance(module, LoraLayer)} for model in (theirs, ours)]
    assert scales[0] == scales[1]


def test_a_folder_of_checkpoints_says_which_it_holds(home: Home) -> None:
    """ms-swift saves to output/checkpoint-N alone, and writes an empty list where peft writes null."""
    output = home.root / "export" / "output"
    trained_elsewhere(home, output / "checkpoint-8")
    _config(modules_to_save=[])(output / "checkpoint-8")
    with pytest.raises(InputError, match=r"output: holds adapters only in folders of its own: checkpoint-8\. Name one of these"):
        adopt_command(home, output, None, say)
    assert adopt_command(home, output / "checkpoint-8", None, say)["manifest"]["trainer"] == "TRL"


def test_an_adapter_that_lies_elsewhere_needs_its_export_named(home: Home, tmp_path: Path) -> None:
    trained_elsewhere(home, tmp_path / "copied")
    with pytest.raises(InputError, match=r"copied: lies in no export, so nothing says what it has learnt from\. Say --export DIR"):
        adopt_command(home, tmp_path / "copied", None, say)
    assert adopt_command(home, tmp_path / "copied", home.root / "export", say)["manifest"]["trainer"] == "TRL"


def _config(**values: Any) -> Callable[[Path], None]:
    def change(output: Path) -> None:
        path = output / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def _weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(output: Path) -> None:
        tensors = load_file(output / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, output / "adapter_model.safetensors")

    return apply


A = "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")


def _renamed(to: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in (A, B):
            tensors[name.replace("model.language_model.layers.0.mlp.up_proj", to)] = tensors.pop(name)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda output: (output / "adapter_config.json").unlink(), "cannot be read as an adapter"),
        (lambda output: (output / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda output: (output / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}"), "cannot be read as an adapter"),
        (_config(peft_type="IA3"), "peft_type is IA3"),
        (_config(bias="all"), "bias is all; expected none"),
        (_config(modules_to_save=["embed_tokens"]), "modules_to_save is"),
        (_config(init_lora_weights="pissa"), "init_lora_weights is pissa.*belongs to a base that was changed first"),
        (_config(r=8), r"has parts of \(4, \d+\) and \(\d+, 4\); expected \(8, inputs\)"),
        (_weights(lambda tensors: tensors.clear()), "holds no adapter of any weight"),
        (_weights(lambda tensors: tensors.pop(B)), "has lora_A; expected lora_A, lora_B"),
        (_weights(lambda tensors: tensors[B].fill_(float("nan"))), "values that are no finite numbers"),
        (_weights(_renamed("model.visual.blocks.0.attn.proj")), r"adapts model\.visual.* no server takes adapters of the vision tower"),
        (_weights(_renamed("lm_head")), r"adapts lm_head\.weight"),
        (_weights(_renamed("model.layers.0.mlp.up_proj")), "which the base does not have"),
        (_weights(lambda tensors: tensors.update({A: torch.zeros(4, 7)})), r"is \(\d+, 7\), the base's weight \(\d+, \d+\)"),
    ],
)
def test_what_is_no_adapter_of_this_base_is_one_line_and_changes_nothing(
    home: Home, change: Callable[[Path], Any], expected: str, capsys: Any
) -> None:
    output = home.root / "export" / "output"
    trained_elsewhere(home, output)
    change(output)
    with pytest.raises(InputError, match=expected):
        adopt_command(home, output, None, say)
    with open_instance(home) as instance:
        assert Record(instance, home).latest_value("lora_adapter") is None
    assert not list((home.store.local_root / "folders").glob("*"))


def test_a_changed_export_a_stale_plan_and_a_document_of_the_test_split_are_refused(home: Home) -> None:
    output = home.root / "export" / "output"
    trained_elsewhere(home, output)
    lines = home.root / "export" / "train.jsonl"
    written = lines.read_bytes()
    lines.write_bytes(written + written.splitlines(keepends=True)[0])
    with pytest.raises(InputError, match=r"train\.jsonl: was changed or removed since it was exported"):
        adopt_command(home, output, None, say)
    lines.write_bytes(written)

    edit_settings(home, lambda values: values["training"].update(learning_rate=1e-4))
    with pytest.raises(InputError, match=r"is stale: .* Run `extraction update --to training_plan` first"):
        adopt_command(home, output, None, say)

    # other shares of the splits: documents that it has learnt from are test documents now
    edit_settings(home, lambda values: values.update(splits={"seed": 5}))
    shutil.rmtree(home.store.local_root / "ledger", ignore_errors=True)
    assert not update_command(home, ["training_plan"], say)[0].failures
    with pytest.raises(InputError, match=r"has learnt from \d+ documents that are in the test split now.*Export the splits of today"):
        adopt_command(home, output, None, say)


def test_an_export_of_another_home_is_refused(home: Home, tmp_path: Path) -> None:
    other = make_home(tmp_path / "other", {"invoice/acme": 6, "invoice/bolt": 6, "receipt/corner": 6})
    drop_document(other, "invoice/acme", "acme-77")
    assert not update_command(other, ["training_plan"], say)[0].failures
    export_command(other, "trl", other.root / "export")
    trained_elsewhere(other, other.root / "export" / "output")
    with pytest.raises(InputError, match=r"that this home's store does not hold\. Adopt in the home that made the export"):
        adopt_command(home, other.root / "export" / "output", None, say)


def test_predict_says_how_to_bring_one_in(home: Home, capsys: Any) -> None:
    trained_elsewhere(home, home.root / "export" / "output")
    page = next(home.landing.glob("invoice/acme/*.pdf"))
    code = main(["--home", str(home.root), "predict", str(page), "--type", "invoice", "--adapter", str(home.root / "export" / "output")])
    assert code == 2
    assert "Bring one that another trainer made in with `extraction adopt`" in capsys.readouterr().err
