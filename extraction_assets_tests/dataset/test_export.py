"""Promises about exports for other trainers: each is read back by the rules of its trainer (exports.py)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from extraction_assets.cli import main
from extraction_assets.dataset.export import FORMATS, FormatName
from extraction_assets.dataset.export.trainer_format import MODEL
from extraction_assets.dataset.records import SPLITS, Split
from extraction_assets.errors import InputError
from extraction_assets.settings import TrainingSettings
from extraction_assets.store import digest_bytes
from extraction_assets_tests.dataset.exports import ATTENTION, READERS, SETTINGS, Dataset, arguments, smart_resize
from extraction_assets_tests.dataset.rows import INSTRUCTION
from extraction_assets_tests.homes import make_home

# --- every format ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_each_trainer_reads_the_same_pages_questions_and_answers(dataset: Dataset, name: FormatName) -> None:
    export = dataset.export(name)
    seen: dict[Split, set[Path]] = {}
    for split in SPLITS:
        found = READERS[name](export.folder, split)
        expected = {(it.instruction, it.target, it.image) for it in dataset.rows[split]}
        assert {(it.after, it.answer, digest_bytes(it.image.read_bytes())) for it in found} == expected
        assert len(found) == len(dataset.rows[split]) == export.splits[split].examples
        assert {it.before for it in found} == {""}, "the picture comes first, as in our own prompt"
        assert digest_bytes((export.folder / export.splits[split].file).read_bytes()) == export.splits[split].digest
        seen[split] = {it.image for it in found}
    assert all(seen[a].isdisjoint(seen[b]) for a, b in (("train", "val"), ("train", "test"), ("val", "test")))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("targets", ["attention", "attention+mlp"])
def test_each_config_holds_the_homes_settings(dataset: Dataset, name: FormatName, targets: str) -> None:
    settings = SETTINGS.model_copy(update={"targets": targets, "max_steps": 90})
    given = arguments(dataset.export(name, training=settings))
    adapted = ATTENTION + (["gate_proj", "up_proj", "down_proj"] if targets == "attention+mlp" else [])
    shared = {
        "num_train_epochs": 2,
        "max_steps": 90,
        "per_device_train_batch_size": 4,  # 5 does not divide 48
        "gradient_accumulation_steps": 12,
        "learning_rate": 1.5e-4,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "seed": 7,
        "save_steps": 10,
        "lora_alpha": 24,
        "lora_dropout": 0.05,
        "lr_scheduler_type": "cosine",
    }
    own: dict[FormatName, dict[str, Any]] = {
        "qwen": {
            "model_name_or_path": MODEL,
            "lora_r": 8,
            "warmup_ratio": 0.05,
            "LORA_TARGETS": ",".join(adapted),
            "LORA_DROPOUT": 0.05,
            "tune_mm_vision": False,
            "tune_mm_mlp": False,
        },
        "llamafactory": {
            "model_name_or_path": MODEL,
            "lora_rank": 8,
            "warmup_ratio": 0.05,
            "lora_target": ",".join(adapted),
            "freeze_vision_tower": True,
            "freeze_multi_modal_projector": True,
            "template": "qwen3_vl_nothink",
            "eval_dataset": "extraction_val",
        },
        "swift": {
            "model": MODEL,
            "lora_rank": 8,
            "warmup_ratio": 0.05,
            "target_modules": adapted,
            "freeze_vit": True,
            "freeze_aligner": True,
            "val_dataset": ["val.jsonl"],
        },
        "trl": {
            "model_name_or_path": MODEL,
            "lora_r": 8,
            "warmup_steps": 0.05,
            "lora_target_modules": adapted,
            "completion_only_loss": True,
            "eval_file": "val.jsonl",
        },
    }
    expected = shared | own[name]
    assert {key: given[key] for key in expected} == expected


@pytest.mark.parametrize("name", FORMATS)
def test_no_page_is_resized_and_no_example_cut(dataset: Dataset, name: FormatName) -> None:
    """The widest page, 144 tokens, is over the budget of 80: the limits follow the pages."""
    given = arguments(dataset.export(name))
    if name == "swift":
        smallest, largest = (int(given["ENV"][key]) * 1024 for key in ("IMAGE_MIN_TOKEN_NUM", "IMAGE_MAX_TOKEN_NUM"))
    else:
        prefix = "image_" if name == "llamafactory" else ""
        smallest, largest = given[f"{prefix}min_pixels"], given[f"{prefix}max_pixels"]
    for it in (it for split in SPLITS for it in dataset.rows[split]):
        assert smart_resize(it.height, it.width, smallest, largest) == (it.height, it.width)
        assert smallest <= it.width * it.height <= largest
    cutoff = given[{"qwen": "model_max_length", "llamafactory": "cutoff_len", "swift": "max_length", "trl": "max_length"}[name]]
    if name == "trl":
        assert cutoff is None, "cuts nothing, whatever the length"
    else:
        # one token a byte is the most a byte-level tokenizer makes
        assert cutoff > max(it.width * it.height // 1024 + len((it.instruction + it.target).encode()) + 13 for it in dataset.rows["train"])


@pytest.mark.parametrize(("name", "key"), [("qwen", "model_max_length"), ("llamafactory", "cutoff_len"), ("swift", "max_length")])
def test_the_cutoff_follows_the_longest_example_where_it_is_known(dataset: Dataset, name: FormatName, key: str) -> None:
    assert 1_500 < arguments(dataset.export(name, longest=1_500))[key] <= 1_600


@pytest.mark.parametrize("name", FORMATS)
def test_without_validation_examples_nothing_is_validated(dataset: Dataset, name: FormatName) -> None:
    dataset.rows["val"] = []
    export = dataset.export(name)
    given = arguments(export)
    assert not {"eval_dataset", "val_dataset", "eval_file"} & set(given)
    assert given.get("eval_strategy", "no") == (False if name == "qwen" else "no")  # the shell's bare no is false to this reader's YAML
    assert (export.folder / "val.jsonl").read_bytes() == b""


@pytest.mark.parametrize("name", FORMATS)
def test_equal_homes_have_equal_exports_byte_for_byte(dataset: Dataset, name: FormatName, tmp_path: Path) -> None:
    one, other = dataset.export(name), dataset.export(name, tmp_path / "other")
    files = sorted(path.relative_to(one.folder) for path in one.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other.folder) for path in other.folder.rglob("*") if path.is_file())
    assert all((one.folder / file).read_bytes() == (other.folder / file).read_bytes() for file in files)
    assert not any(str(tmp_path).encode() in (one.folder / file).read_bytes() for file in files), "it can be carried elsewhere"


def test_qlora_is_carried_over(dataset: Dataset) -> None:
    settings = SETTINGS.model_copy(update={"method": "qlora"})
    assert arguments(dataset.export("llamafactory", training=settings))["quantization_bit"] == 4
    assert arguments(dataset.export("swift", training=settings))["quant_bits"] == 4
    assert arguments(dataset.export("trl", training=settings))["load_in_4bit"] is True
    with pytest.raises(InputError, match=r"training.method: found qlora; expected lora"):
        dataset.export("qwen", training=settings)


@pytest.mark.parametrize("variant", ["rslora", "dora"])
def test_variants_of_lora_are_carried_over(dataset: Dataset, variant: str) -> None:
    settings = SETTINGS.model_copy(update={variant: True})
    for name in ("llamafactory", "swift", "trl"):
        given = arguments(dataset.export(name, training=settings))
        assert {key: given[key] for key in ("use_rslora", "use_dora")} == {"use_rslora": variant == "rslora", "use_dora": variant == "dora"}
    with pytest.raises(InputError, match=f"training.{variant}: found true; expected false: qwen-vl-finetune has plain LoRA"):
        dataset.export("qwen", training=settings)


@pytest.mark.parametrize(("change", "message"), [({"alpha": 24.5}, "a whole number"), ({"shuffle_targets": True}, "a control run")])
def test_settings_that_no_other_trainer_follows_are_refused(dataset: Dataset, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataset.export("trl", training=SETTINGS.model_copy(update=change))


# --- scripts, datasets, the command --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen", "trl"])
def test_scripts_compile(dataset: Dataset, name: FormatName) -> None:
    compile((dataset.export(name).folder / "train.py").read_text(), "train.py", "exec")


def test_trl_loads_with_hugging_face_datasets(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the script in the export; parts of a message keep to their keys, which TRL counts."""
    export = dataset.export("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(export.folder)
    spec = importlib.util.spec_from_file_location("exported_train", export.folder / "train.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "exported_train", script)
    spec.loader.exec_module(script)
    loaded = script.load_split("train.jsonl")
    rows = {(it.id): it for it in dataset.rows["train"]}
    assert {it["id"] for it in loaded} == set(rows)
    for it in loaded:
        expected = rows[it["id"]]
        picture, text = it["prompt"][0]["content"]
        assert picture["type"] == "image"
        assert "image" not in picture
        assert text["text"] == expected.instruction
        assert it["completion"][0]["content"][0]["text"] == expected.target
        assert [image.size for image in it["images"]] == [(expected.width, expected.height)]


def test_the_qwen_script_registers_the_split_and_the_homes_targets(dataset: Dataset, tmp_path: Path) -> None:
    """Against a stand-in of its trainer that has the same names: data_dict, and a train() that makes a LoraConfig."""
    export = dataset.export("qwen")
    code = tmp_path / "qwen-vl-finetune" / "qwenvl"
    (code / "data").mkdir(parents=True)
    (code / "train").mkdir()
    (code / "data" / "__init__.py").write_text("data_dict = {}\n")
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "peft.py").write_text("class LoraConfig:\n    def __init__(self, **given): self.given = given\n")
    (code / "train" / "train_qwen.py").write_text(
        "import json\nfrom qwenvl.data import data_dict\n\ndef train():\n"
        "    from peft import LoraConfig\n"
        "    print(json.dumps([data_dict, LoraConfig(r=8, lora_dropout=0.0 or 0.05, target_modules=['q_proj']).given]))\n"
    )
    environment = {"QWEN_FINETUNE": str(code.parent), "LORA_TARGETS": "q_proj,up_proj", "LORA_DROPOUT": "0.0"}
    python = shutil.which("python3") or "python3"
    done = subprocess.run(
        [python, str(export.folder / "train.py")],
        env={**os.environ, **environment, "PYTHONPATH": str(tmp_path / "fake")},
        capture_output=True,
        text=True,
        check=True,
    )
    registered, given = json.loads(done.stdout)
    assert registered["extraction_train"] == {"annotation_path": str(export.folder / "train.jsonl"), "data_path": str(export.folder)}
    assert given == {"r": 8, "lora_dropout": 0.0, "target_modules": ["q_proj", "up_proj"]}


def test_a_plan_tells_the_longest_example_only_where_it_speaks_of_all_of_them() -> None:
    from extraction_assets.commands import longest_planned

    splits: dict[Split, str] = {"train": "t", "val": "v", "test": "e"}

    def planned(val: Any = None, over: tuple[Any, ...] = (), **digests: str) -> dict[str, Any]:
        return {"splits": {**splits, **digests}, "plan": {"train": {"longest": 900, "over_length": over, "unwritable": ()}, "val": val}}

    assert longest_planned(planned(), splits) == 900
    assert longest_planned(planned({"longest": 950, "over_length": (), "unwritable": ()}), splits) == 950
    assert longest_planned(planned(over=({"id": "x"},)), splits) is None, "the export holds the over-length example too"
    assert longest_planned(planned(train="older"), splits) is None
    assert longest_planned(None, splits) is None


def test_settings_that_no_config_speaks_of_are_told() -> None:
    from extraction_assets.dataset.export.trainer_format import not_carried_over

    assert not_carried_over(TrainingSettings(r=8, epochs=3)) == []
    changed = TrainingSettings(keep="best", patience=2, recompute="layers")
    assert not_carried_over(changed) == ["training.recompute: layers", "training.keep: best", "training.patience: 2"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path / "home", {"invoice/acme": 4}, base=False)
    at = ["--home", str(home.root)]
    assert main([*at, "dataset", "--export", "swift"]) == 2
    assert "train_split was never materialized" in capsys.readouterr().err
    assert main([*at, "update", "--to", "test_split"]) == 0
    assert main([*at, "dataset", "--out", "x"]) == 2
    capsys.readouterr()
    assert main([*at, "dataset", "--export", "swift", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "swift"
    assert Path(told["folder"]).parent == home.root / "exports"
    assert Path(told["config"]).is_file()
    for split in SPLITS:
        data = Path(told["splits"][split]["file"]).read_bytes()
        assert told["splits"][split]["digest"] == digest_bytes(data)
        assert told["splits"][split]["examples"] == data.count(b"\n")
    assert INSTRUCTION.split(":")[0] in Path(told["splits"]["train"]["file"]).read_text()
    assert main([*at, "dataset", "--export", "llamafactory"]) == 2
    assert "expected 65,536 px or more" in capsys.readouterr().err
