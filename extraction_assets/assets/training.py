"""Stage 4: the training plan and the adapter. One training at a time (pool `gpu`)."""

import json
from collections.abc import Sequence
from typing import Any

import dagster as dg

from extraction_assets.assets.conditions import nightly, on_change
from extraction_assets.assets.dataset import dataset_card, example_index, test_split, train_split, val_split
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.roots import base_model
from extraction_assets.dataset.chat import local_split
from extraction_assets.record import ADOPTED_TAG
from extraction_assets.settings import AutomationSettings, TrainingSettings

TRAINING_POOL = "gpu"
ADOPTED = "adopted"
"""in the value of lora_adapter, where another trainer made it: whose"""


def training_assets(automation: AutomationSettings) -> list[dg.AssetsDefinition]:
    @dg.asset(
        group_name="training",
        deps=[train_split, val_split, test_split, example_index, dataset_card, base_model, "training_settings"],
        automation_condition=nightly(automation.cron, automation.timezone),
        description="The training to come: examples, lengths, steps, memory and time. It pins the digests of the splits and of the base model; "
        "everything below follows the plan, so the nightly gate stands here alone.",
        owners=OWNERS,
        kinds={"json"},
        code_version="4",
    )
    def training_plan(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        from extraction_assets.assets.report_source import split_schemas
        from extraction_assets.training.plan import plan_training  # torch: `status` and the dataset do without it
        from extraction_assets.training.plan_card import plan_card
        from extraction_assets.training.warm_start import warm_start

        run = Materialization(context, home)
        settings = TrainingSettings.from_json(run.read("training_settings"))
        digests = {name: run.read(f"{name}_split")["jsonl"] for name in ("train", "val", "test")}
        plan = plan_training(
            run.store.local_path(digests["train"], ".jsonl"),
            run.store.local_path(digests["val"], ".jsonl"),
            run.home.base_model(),
            settings,
            split_schemas(run.store, digests["train"]) | split_schemas(run.store, digests["val"]),
        )
        for example in plan.train.over_length:
            context.log.warning(
                f"example {example.id} has a target of {example.target_tokens} tokens, more than training.max_target_tokens: it is left out whole"
            )
        for target in plan.train.unwritable:
            context.log.warning(f"left out: {target.problem}")
        base = run.read("base_model")["base_digest"]
        # the champion is what the gate has decided so far: state of the home, not an input (that edge would close a circle)
        champion = (run.record.latest_value("champion_adapter") or {}).get("adapter")
        start, why = warm_start(run.store, champion, settings, base, digests["test"])
        value = {
            "plan": plan.model_dump(mode="json"),
            "start": start,
            "splits": digests,
            "targets": run.read("example_index")["targets"],
            "base": base,
        }
        return run.finish(value, {"plan": dg.MetadataValue.md(plan_card(plan)), "steps": plan.steps, "starts_from": why})

    @dg.asset(
        group_name="training",
        deps=[training_plan],
        pool=TRAINING_POOL,
        automation_condition=on_change(),
        retry_policy=dg.RetryPolicy(max_retries=1, delay=10),
        description="LoRA weights of the language model's linears, trained in a process of its own; a killed run resumes at its last checkpoint. "
        "Or those that another trainer made of an export (`extraction adopt`), until the plan changes.",
        owners=OWNERS,
        kinds={"pytorch", "huggingface"},
        code_version="2",
    )
    def lora_adapter(context: dg.AssetExecutionContext, home: HomeResource, pipes: dg.PipesSubprocessClient) -> dg.MaterializeResult:
        from extraction_assets.assets.report_source import split_schemas
        from extraction_assets.assets.training_places import ended_by_interruption, threads_of, train_here, train_on_azure, train_on_ray
        from extraction_assets.training.job import make_job
        from extraction_assets.training.plan import TrainingPlan

        run = Materialization(context, home)
        if (adopted := context.run.tags.get(ADOPTED_TAG)) is not None:
            return _finish(run, adopted, [])
        planned = run.read("training_plan")
        plan = TrainingPlan.model_validate(planned["plan"])
        compute = run.home.settings().compute
        job = make_job(
            local_split(planned["splits"]["train"], run.store),
            local_split(planned["splits"]["val"], run.store),
            run.home.base_model(),
            plan.settings,
            work=run.store.local_root / "work",
            plan=plan,
            base_digest=planned["base"],
            threads=threads_of(compute),
            start=run.store.folder(planned["start"]) if planned["start"] else None,
            schemas=split_schemas(run.store, planned["splits"]["val"]),
            tracking=run.home.settings().tracking,
            visual_memory_gb=run.home.settings().visual_memory_gb,
        )
        adapter = job.identity
        run.store.find_folder(adapter)  # trained before, on a machine that shares this store: nothing is left to do
        job = job.model_copy(update={"work": str(run.store.work_folder(adapter)), "output": str(run.store.folder_path(adapter))})
        with ended_by_interruption():
            if compute.where == "azure_ml":
                messages = train_on_azure(context, job, compute)
            elif compute.where == "ray":
                messages = train_on_ray(context, job, compute)
            else:
                messages = train_here(context, job, compute, pipes)
        return _finish(run, adapter, messages)

    return [training_plan, lora_adapter]


def _finish(run: Materialization, adapter: str, messages: Sequence[Any]) -> dg.MaterializeResult:
    """messages: what the training said of itself."""
    from extraction_assets.training.adapter import verify_adapter

    manifest = verify_adapter(run.store.folder(adapter))
    run.store.share_folder(adapter)
    elsewhere = {} if manifest.trainer is None else {ADOPTED: manifest.trainer}
    return run.finish(
        {"adapter": adapter, "files": manifest.files, **elsewhere},
        {
            "path": dg.MetadataValue.path(str(run.store.folder(adapter))),
            "manifest": dg.MetadataValue.json(json.loads(manifest.model_dump_json())),
            "trained_by": manifest.trainer or "this graph",
            **{key: value for message in messages if isinstance(message, dict) for key, value in message.items()},
        },
    )
