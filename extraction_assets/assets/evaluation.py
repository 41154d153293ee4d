"""Stage 5: predictions, the eval report, and the champion behind its gate."""

from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.training import TRAINING_POOL

# from extraction_assets.evaluation.gate import Decision, decide
# from extraction_assets.evaluation.report import write_report
from extraction_assets.settings import AutomationSettings, DecodingSettings
from extraction_assets.store import digest_of

ANSWERED_SPLITS = ("val", "test")


def evaluation_assets(automation: AutomationSettings) -> list[dg.AssetsDefinition]:
    @dg.asset(
        group_name="evaluation",
        deps=["training_plan", "lora_adapter", "decoding_settings"],
        pool=TRAINING_POOL,
        automation_condition=on_change(),
        description="Greedy answers of base, challenger and champion on val and test, one JSONL each. Answers that exist are not given again.",
        owners=OWNERS,
        kinds={"pytorch", "jsonl"},
        code_version="1",
    )
    def predictions(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        run = Materialization(context, home)
        planned, challenger = run.read("training_plan"), run.read("lora_adapter")["adapter"]
        # the champion is what the gate has decided so far: state of the home, not an input (that edge would close a circle)
        champion = (run.record.latest_value("champion_adapter") or {}).get("adapter")
        systems: dict[str, str | None] = {"base": None, "challenger": challenger}
        if champion is not None and champion != challenger:
            systems["champion"] = champion
        answers = {
            system: {split: _answer(run, planned, split, adapter) for split in ANSWERED_SPLITS} for system, adapter in systems.items()
        }
        return run.finish(
            {
                "base": planned["base"],
                "splits": {split: planned["splits"][split] for split in ANSWERED_SPLITS},
                "adapters": systems,
                "answers": answers,
                "decoding": run.version("decoding_settings"),
            },
            {
                f"{system}_{split}": dg.MetadataValue.path(str(run.store.path(digest, ".jsonl")))
                for system, by in answers.items()
                for split, digest in by.items()
            },
        )

    return [predictions]


def _answer(run: Materialization, planned: dict[str, Any], split: str, adapter: str | None) -> str:
    """Digest of the answers' JSONL."""
    from extraction_assets.inference.predict import predict_split  # torch: `status` and the dataset do without it

    settings = DecodingSettings.from_json(run.read("decoding_settings"))
    name = digest_of(
        {"split": planned["splits"][split], "base": planned["base"], "adapter": adapter, "decoding": settings.model_dump(mode="json")}
    )

    def build(folder: Path) -> None:
        predict_split(
            Path(str(run.store.path(planned["splits"][split], ".jsonl"))),
            run.home.base_model(),
            run.store.folder(adapter) if adapter else None,
            settings,
            folder / "answers.jsonl",
            work=run.store.work_folder(name),
            progress=run.progress("page"),
        )

    return run.store.put_file(run.store.build_folder(name, build) / "answers.jsonl", ".jsonl")
