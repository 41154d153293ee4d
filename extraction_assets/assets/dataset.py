"""Stage 3: the index of all examples, the splits, and the dataset card. From here on the vendors are together."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.pages import hard_negatives, page_targets
from extraction_assets.assets.roots import base_model
from extraction_assets.assets.tables import markdown_table
from extraction_assets.dataset.card import dataset_card as make_card
from extraction_assets.dataset.card import find_leaks
from extraction_assets.dataset.chat import load_split, write_split
from extraction_assets.dataset.index import build_index, read_index, write_index
from extraction_assets.dataset.records import SPLITS, Split, VendorNegatives, VendorTargets
from extraction_assets.dataset.splits import Assignment, SplitLedger, assign_splits
from extraction_assets.home import chat_record_schema_path
from extraction_assets.settings import SplitSettings


@dg.asset(
    group_name="dataset",
    deps=[page_targets, hard_negatives],
    automation_condition=on_change(),
    description="One table of every page and example, by digest. Unpartitioned and cheap: it stands between the vendors and everything below, "
    "since Dagster never calls an asset with 100 or more upstream partitions stale.",
    owners=OWNERS,
    kinds={"json"},
    code_version="1",
)
def example_index(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    targets = [VendorTargets.model_validate(value) for value in run.read_partitions("page_targets")]
    negatives = (VendorNegatives.model_validate(value) for value in run.read_partitions("hard_negatives"))
    rows = build_index(targets, negatives)
    unplaced = [value.model_dump(mode="json") for vendor in targets for value in vendor.unplaced]
    return run.finish(
        {"index": write_index(rows, run.store), "unplaced": run.store.put_json(unplaced)},
        {"examples": len(rows), "documents": len({row.document for row in rows}), "unplaced_values": len(unplaced)},
    )


@dg.asset(
    group_name="dataset",
    deps=[example_index, "split_settings"],
    automation_condition=on_change(),
    description="Which document belongs to which split: 80/10/10, stable for life, twins together, stratified by vendor.",
    owners=OWNERS,
    kinds={"json"},
    code_version="1",
)
def split_assignment(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    settings = SplitSettings.from_json(run.read("split_settings"))
    rows = read_index(run.read("example_index")["index"], run.store)
    ledger = SplitLedger(run.home.root / "store" / "ledgers", settings)
    assignment = assign_splits(rows, settings, ledger, run.store)
    for document in assignment.left_out:
        context.log.warning(f"document {document[:12]} is left out: its twins sit in two splits")
    return run.finish(
        assignment.model_dump(mode="json"),
        {
            "documents": dg.MetadataValue.md(markdown_table(["split", "documents"], [(name, assignment.count(name)) for name in SPLITS])),
            "twin_groups": sum(len(group) > 1 for group in assignment.groups),
            "left_out": len(assignment.left_out),
        },
    )


def _split_asset(split: Split) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{split}_split",
        group_name="dataset",
        deps=[example_index, split_assignment],
        automation_condition=on_change(),
        description=f"The {split} split as JSONL: one chat record a line, validated on write.",
        owners=OWNERS,
        kinds={"jsonl"},
        code_version="1",
        check_specs=[
            dg.AssetCheckSpec("is_not_empty", asset=f"{split}_split", blocking=split == "train", description="Training needs examples.")
        ],
    )
    def split_asset(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        run = Materialization(context, home)
        assignment = Assignment.model_validate(run.read("split_assignment"))
        rows = [row for row in read_index(run.read("example_index")["index"], run.store) if assignment.split_of(row.document) == split]
        digest = write_split(rows, split, run.store, chat_record_schema_path())
        return run.finish(
            {"jsonl": digest, "examples": len(rows)},
            {"examples": len(rows), "path": dg.MetadataValue.path(str(run.store.path(digest, ".jsonl")))},
            [
                dg.AssetCheckResult(
                    check_name="is_not_empty",
                    passed=len(rows) > 0,
                    severity=dg.AssetCheckSeverity.ERROR if split == "train" else dg.AssetCheckSeverity.WARN,
                    metadata={"examples": len(rows)},
                )
            ],
        )

    return split_asset


train_split, val_split, test_split = (_split_asset(split) for split in SPLITS)


@dg.asset(
    group_name="dataset",
    deps=[train_split, val_split, test_split, split_assignment, example_index, base_model],
    automation_condition=on_change(),
    description="What is in the dataset, as JSON and Markdown: counts, lengths, digests, and the leak check on the records as written.",
    owners=OWNERS,
    kinds={"markdown"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec("no_leaks", asset="dataset_card", blocking=True, description="No document, twin or page image in two splits.")
    ],
)
def dataset_card(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    assignment = Assignment.model_validate(run.read("split_assignment"))
    digests = {split: run.read(f"{split}_split")["jsonl"] for split in SPLITS}
    records = {split: list(load_split(run.store.path(digest, ".jsonl"), chat_record_schema_path())) for split, digest in digests.items()}
    unplaced = run.store.read_json(run.read("example_index")["unplaced"])
    leaks = find_leaks(records, assignment.groups)
    card = make_card(records, digests, assignment, unplaced, leaks, count_tokens=_token_counter(run.home.base_model()))
    return run.finish(
        card.model_dump(mode="json"),
        {"card": dg.MetadataValue.md(card.markdown()), "leaks": len(leaks)},
        [
            dg.AssetCheckResult(
                check_name="no_leaks",
                passed=not leaks,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"leaks": "\n".join(map(str, leaks[:20])) or "none"},
            )
        ],
    )


def _token_counter(base: str) -> Callable[[str], int]:
    from extraction_assets.model.base import load_tokenizer

    tokenizer = load_tokenizer(base)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
