"""Stage 3: the index of all examples, the splits, and the dataset card. From here on the vendors are together."""

from collections.abc import Callable

import dagster as dg
from filelock import FileLock
from pydantic import TypeAdapter

from extraction_assets.assets.conditions import on_change
from extraction_assets.assets.materialization import MOST_WARNINGS, OWNERS, HomeResource, Materialization
from extraction_assets.assets.pages import hard_negatives, page_targets
from extraction_assets.assets.roots import base_model
from extraction_assets.assets.tables import markdown_table
from extraction_assets.dataset.card import dataset_card as make_card
from extraction_assets.dataset.chat import as_taught, load_split, write_split
from extraction_assets.dataset.index import build_index, contradictions, read_index, write_index
from extraction_assets.dataset.leaks import find_leaks
from extraction_assets.dataset.ledger import SplitLedger, assignment_digest
from extraction_assets.dataset.records import SPLITS, IndexRow, Split, VendorNegatives, VendorTargets
from extraction_assets.dataset.splits import Assignment, assign_splits, split_documents, split_rows
from extraction_assets.dataset.twins import find_twins
from extraction_assets.home import chat_record_schema_path
from extraction_assets.record import TOGETHER_TAG
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import SplitSettings
from extraction_assets.store import Store

_ASSIGNMENT = TypeAdapter(Assignment)


@dg.asset(
    group_name="dataset",
    deps=[page_targets, hard_negatives],
    automation_condition=on_change(spoken_for=["page_targets"]),
    description="One table of every page and example, by digest. Unpartitioned and cheap: it stands between the vendors and everything below, "
    "since Dagster never calls an asset with 100 or more upstream partitions stale.",
    owners=OWNERS,
    kinds={"json"},
    code_version="1",
)
def example_index(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    run = Materialization(context, home)
    # a vendor's targets as its negatives were made from them: a vendor between the two stages counts as it stood before
    versions = {vendor: value["targets"] for vendor, value in run.read_partitions("hard_negatives")}
    targets = (VendorTargets.model_validate(run.store.read_json(version)) for version in versions.values())
    negatives = (VendorNegatives.model_validate(value) for _, value in run.read_partitions("hard_negatives"))
    rows = build_index(targets, negatives)
    opposed = contradictions(rows)
    for one, other in opposed[:MOST_WARNINGS]:
        context.log.warning(
            f"one page has two different targets: page {one.page} of {one.document[:12]} in {one.vendor} "
            f"and page {other.page} of {other.document[:12]} in {other.vendor}. Correct one label, or remove one of the two"
        )
    # the versions go along, so that the card below needs no edge to a hundred partitions
    return run.finish(
        {"index": write_index(rows, run.store), "targets": versions},
        {"examples": len(rows), "documents": len({row.document for row in rows}), "contradictions": len(opposed)},
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
    rows = _rows(run)
    twins = find_twins(rows, _schemas(rows, run.store), settings, run.store, progress=run.progress("document"))
    folder = run.home.root / "store" / "ledgers"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # a run from the UI beside an update: neither may forget what the other has assigned
        ledger = f"ledgers/{assignment_digest(settings)}.jsonl"
        run.store.pull(ledger)
        assignment = assign_splits(split_documents(rows), twins, settings, SplitLedger(folder, settings))
        run.store.push(ledger)
    for out in assignment.left_out:
        context.log.warning(f"document {out.document[:12]} of {out.vendor} is left out: {out.reason}")
    for vendor in assignment.unknown_held_out:
        context.log.warning(f"splits.held_out_vendors: {vendor} has no labelled document")
    return run.finish(
        _ASSIGNMENT.dump_python(assignment, mode="json"),
        {
            "documents": dg.MetadataValue.md(
                markdown_table(["split", "documents"], [(split, len(assignment.documents(split))) for split in SPLITS])
            ),
            "twin_groups": sum(count for size, count in assignment.groups.sizes.items() if size > 1),
            "left_out": len(assignment.left_out),
        },
    )


def _rows(run: Materialization) -> list[IndexRow]:
    return read_index(run.read("example_index")["index"], run.store)


def _schemas(rows: list[IndexRow], store: Store) -> dict[str, TargetSchema]:
    """Each type's schema, found in the store under the digest that its examples name."""
    digests = {row.type: row.schema_digest for row in rows}
    return {name: TargetSchema(store.read_json(digest), name, source=f"schemas/{name}.schema.json") for name, digest in digests.items()}


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
        tags={TOGETHER_TAG: "splits"},
        check_specs=[
            dg.AssetCheckSpec(
                "is_not_empty", asset=f"{split}_split", blocking=split != "val", description="Training and judging need examples."
            )
        ],
    )
    def split_asset(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
        run = Materialization(context, home)
        rows = split_rows(_rows(run), _ASSIGNMENT.validate_python(run.read("split_assignment")))[split]
        digest = write_split(as_taught(rows, run.store), split, run.store, chat_record_schema_path())
        return run.finish(
            {"jsonl": digest, "examples": len(rows)},
            {"examples": len(rows), "path": dg.MetadataValue.path(str(run.store.path(digest, ".jsonl")))},
            [
                dg.AssetCheckResult(
                    check_name="is_not_empty",
                    passed=len(rows) > 0,
                    severity=dg.AssetCheckSeverity.WARN if split == "val" else dg.AssetCheckSeverity.ERROR,
                    description=None if rows else f"the {split} split holds no example: more labelled documents are needed",
                    metadata={"examples": len(rows)},
                )
            ],
        )

    return split_asset


train_split, val_split, test_split = (_split_asset(split) for split in SPLITS)


@dg.asset(
    group_name="dataset",
    deps=[train_split, val_split, test_split, split_assignment, example_index, "split_settings", base_model],
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
    assignment = _ASSIGNMENT.validate_python(run.read("split_assignment"))
    digests: dict[Split, str] = {split: run.read(f"{split}_split")["jsonl"] for split in SPLITS}
    records = (record for digest in digests.values() for record in load_split(run.store.path(digest, ".jsonl"), chat_record_schema_path()))
    leaks = find_leaks(records, assignment.groups.group)
    targets = (VendorTargets.model_validate(run.store.read_json(version)) for version in run.read("example_index")["targets"].values())
    card = make_card(
        split_rows(list(as_taught(_rows(run), run.store)), assignment),
        digests,
        assignment,
        targets,
        settings={"splits": run.version("split_settings")},
        leaks=leaks,
        count_tokens=_token_counter(run.home.base_model()),
    )
    return run.finish(
        card.model_dump(mode="json"),
        {"card": dg.MetadataValue.md(card.to_markdown()), "leaks": len(leaks)},
        [
            dg.AssetCheckResult(
                check_name="no_leaks",
                description=f"{len(leaks)} leaks: one thing stands in two splits" if leaks else None,
                passed=not leaks,
                severity=dg.AssetCheckSeverity.ERROR,
                metadata={"leaks": "\n".join(map(str, leaks[:20])) or "none"},
            )
        ],
    )


def _token_counter(base: str) -> Callable[[str], int]:
    from extraction_assets.model.base import load_base_format

    tokenizer = load_base_format(base).tokenizer
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
