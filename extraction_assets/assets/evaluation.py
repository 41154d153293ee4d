"""Stage 5: predictions, the eval report, and the champion behind its gate."""

import datetime
import math
from pathlib import Path
from typing import Any

import dagster as dg

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.report_source import page_texts, point_to, score_split, split_schemas
from extraction_assets.assets.tables import svg_image
from extraction_assets.assets.training import TRAINING_POOL
from extraction_assets.dataset.chat import local_split
from extraction_assets.evaluation.calibrated_run import calibrate
from extraction_assets.evaluation.gate import decide
from extraction_assets.evaluation.headline_table import headline_rows
from extraction_assets.evaluation.report import build_report
from extraction_assets.evaluation.report_data import HistoryPoint
from extraction_assets.inference.ocr import reader
from extraction_assets.record import DECISION
from extraction_assets.settings import AutomationSettings, DecodingSettings, EvaluationSettings
from extraction_assets.store import digest_of

ANSWERED_SPLITS = ("val", "test")
"""val is what an adapter's confidences are calibrated on; nobody asks for the base's"""
HEADLINE = "headline"
"""metadata key of the challenger's headline: the learning curve reads it back"""
STRICT_ENOUGH = 0.99


def _what_rules_read(asked: bool) -> str:
    if not asked:
        return "nothing: evaluation.rules_baseline is false"
    return f"text layers; pages without one: {reader() or 'none, Tesseract is not installed'}"


def evaluation_assets(automation: AutomationSettings) -> list[dg.AssetsDefinition]:
    @dg.asset(
        group_name="evaluation",
        deps=["training_plan", "lora_adapter", "decoding_settings"],
        pool=TRAINING_POOL,
        automation_condition=on_change(),
        description="Greedy answers of base, challenger and champion on val and test, one JSONL each. Answers that exist are not given again.",
        owners=OWNERS,
        kinds={"pytorch", "jsonl"},
        code_version="3",
    )
    def predictions(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        run = Materialization(context, home)
        planned, challenger = run.read("training_plan"), run.read("lora_adapter")["adapter"]
        # the champion is what the gate has decided so far: state of the home, not an input (that edge would close a circle)
        champion = (run.record.latest_value("champion_adapter") or {}).get("adapter")
        systems: dict[str, str | None] = {"base": None, "challenger": challenger}
        if champion is not None and champion != challenger:
            systems["champion"] = champion
        given = {
            system: {split: _answer(run, planned, split, adapter) for split in (ANSWERED_SPLITS if adapter else ("test",))}
            for system, adapter in systems.items()
        }
        answers = {system: {split: jsonl for split, (jsonl, _) in by.items()} for system, by in given.items()}
        return run.finish(
            {
                "base": planned["base"],
                "splits": planned["splits"],
                "targets": planned["targets"],
                "adapters": systems,
                "answers": answers,
                "confidences": {system: {split: folder for split, (_, folder) in by.items()} for system, by in given.items()},
                "decoding": run.version("decoding_settings"),
                "control": planned["plan"]["settings"]["shuffle_targets"],
            },
            {
                f"{system}_{split}": dg.MetadataValue.path(str(run.store.path(digest, ".jsonl")))
                for system, by in answers.items()
                for split, digest in by.items()
            },
        )

    @dg.asset(
        group_name="evaluation",
        deps=[predictions, "evaluation_settings"],
        automation_condition=on_change(),
        description="Every metric of base, champion and challenger on the same test set, as JSON and as one self-contained HTML page.",
        owners=OWNERS,
        kinds={"html"},
        code_version="3",
        check_specs=[
            dg.AssetCheckSpec("answers_are_strict_json", asset="eval_report", description="The challenger answers with strict JSON.")
        ],
    )
    def eval_report(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        run = Materialization(context, home)
        settings = EvaluationSettings.from_json(run.read("evaluation_settings"))
        answered = run.read("predictions")
        scored = score_split(run.store, answered, "test", settings.rules_baseline, run.settings.workers)
        decision = decide(
            scored.systems.get("champion"), scored.systems["challenger"], scored.systems["base"], settings, answered["control"]
        )
        routing = calibrate(score_split(run.store, answered, "val"), scored, settings)
        title = f"Adapter {answered['adapters']['challenger'][:12]} on {sum(len(one.examples) for one in scored.types)} test pages"
        report = build_report(scored, settings, title, decision, history=_history(context.instance), calibration=routing)
        value = {
            "adapters": answered["adapters"],
            "answers": answered["answers"],
            "split": answered["splits"]["test"],
            "report": {key: part for key, part in report.data.items() if key != "history"},
            "headlines": headline_rows(scored, settings),
            "decision": decision.as_json(),
            "calibration": routing,
        }
        folder = run.home.reports / digest_of(value)[:16]
        path = report.write(folder, progress=run.progress("page"))
        point_to(run.home.reports / "latest", folder)
        headline = scored.systems["challenger"].value(settings.headline)
        strict = scored.systems["challenger"].value("strict_json")
        return run.finish(
            value,
            {
                "report": dg.MetadataValue.path(str(path)),
                HEADLINE: dg.MetadataValue.float(float("nan") if headline is None else headline),
                "decision": decision.reason,
                "rules_read": _what_rules_read(settings.rules_baseline),
                **{name: dg.MetadataValue.md(svg_image(svg)) for name, svg in report.plots.items() if name == "headline"},
            },
            [
                dg.AssetCheckResult(
                    check_name="answers_are_strict_json",
                    passed=strict is not None and strict >= STRICT_ENOUGH,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"strict_json": -1.0 if strict is None else strict},
                )
            ],
        )

    @dg.asset(
        group_name="evaluation",
        deps=[eval_report],
        automation_condition=on_change(),
        description="The adapter that serves. It changes only when the challenger is better on the same test set and no guard is worse.",
        owners=OWNERS,
        kinds={"huggingface"},
        code_version="2",
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=datetime.timedelta(hours=automation.freshness_hours)),
        check_specs=[
            dg.AssetCheckSpec("challenger_was_promoted", asset="champion_adapter", description="What the gate decided, with its numbers.")
        ],
    )
    def champion_adapter(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        run = Materialization(context, home)
        evaluated = run.read("eval_report")
        decision, challenger = evaluated["decision"], evaluated["adapters"]["challenger"]
        last = run.record.latest_value("champion_adapter") or {}
        before = last.get("adapter")
        adapter = challenger if decision["promote"] or before == challenger else before
        # as it became champion: what is made of a champion must not change with every night's dataset
        kept = {key: last.get(key) for key in ("split", "routing")} if adapter == before else {}
        found = {"split": evaluated["split"], "routing": evaluated["calibration"]["routing"]}
        value = {"adapter": adapter, **{key: (kept.get(key) or found[key]) if adapter else None for key in found}}
        return run.finish(
            value,
            {
                DECISION: dg.MetadataValue.json(value),  # `check --repair` writes a lost value again from here
                "adapter": adapter or "none yet: no adapter was better than the base model",
                "path": dg.MetadataValue.path(str(run.store.folder(adapter))) if adapter else "none",
                "reason": decision["reason"],
            },
            [
                dg.AssetCheckResult(
                    check_name="challenger_was_promoted",
                    passed=bool(decision["promote"]) or before == challenger,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"reason": decision["reason"], "numbers": dg.MetadataValue.json(decision["numbers"])},
                )
            ],
        )

    return [predictions, eval_report, champion_adapter]


def _history(instance: dg.DagsterInstance) -> list[HistoryPoint]:
    """Headlines of earlier reports, oldest first: for the learning curve on the page, not part of the value."""
    events = instance.fetch_materializations(dg.AssetKey("eval_report"), limit=60).records
    points = []
    for event in reversed(events):
        metadata = event.asset_materialization.metadata if event.asset_materialization else {}
        value = metadata.get(HEADLINE)
        if isinstance(value, dg.FloatMetadataValue) and value.value is not None and not math.isnan(value.value):
            day = datetime.datetime.fromtimestamp(event.timestamp, tz=datetime.UTC)
            points.append(HistoryPoint(day.strftime("%Y-%m-%d %H:%M"), value.value))
    return points


def _answer(run: Materialization, planned: dict[str, Any], split: str, adapter: str | None) -> tuple[str, str]:
    """(digest of the answers' JSONL, name of the folder that also holds the confidences)."""
    from extraction_assets.inference.predict import predict_split  # torch: `status` and the dataset do without it
    from extraction_assets.training.adapter import read_manifest

    settings = DecodingSettings.from_json(run.read("decoding_settings"))
    name = digest_of(
        {
            "split": planned["splits"][split],
            "base": planned["base"],
            "adapter": adapter,
            "decoding": settings.model_dump(mode="json"),
            "with": "confidences",
        }
    )

    def build(folder: Path) -> None:
        schemas = split_schemas(run.store, planned["splits"][split])
        if adapter is not None:  # a champion may be of a time when targets.wire said otherwise
            taught = read_manifest(run.store.folder(adapter)).schemas
            schemas = {digest: schema.as_taught(taught) for digest, schema in schemas.items()}
        predict_split(
            local_split(planned["splits"][split], run.store),
            run.home.base_model(),
            run.store.folder(adapter) if adapter else None,
            settings,
            folder / "answers.jsonl",
            work=run.store.work_folder(name),
            progress=run.progress("page"),
            schemas=schemas,
            texts=page_texts(run.store, planned["splits"][split], planned["targets"]),
        )

    return run.store.put_file(run.store.build_folder(name, build) / "answers.jsonl", ".jsonl"), name
