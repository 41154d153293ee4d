"""The dataset card: what is in the splits, where it comes from, and whether anything leaks. As JSON and as Markdown.

The same content gives the same card: no dates, no paths, no durations.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from extraction_assets.dataset.leaks import Leak
from extraction_assets.dataset.records import CLEAN, SPLITS, IndexRow, Split, VendorTargets
from extraction_assets.dataset.splits import Assignment
from extraction_assets.documents.records import Record
from extraction_assets.page_budget import GRID_PX

MOST_VENDORS = 50
"""vendors in the Markdown's table; the JSON has all"""


class Lengths(Record):
    """Distribution of a length over examples."""

    least: int
    median: int
    p95: int
    most: int
    total: int


class Counts(Record):
    """Examples, pages and documents of some part of the dataset."""

    examples: int
    pages: int
    """clean pages"""
    documents: int


class DatasetCard(Record):
    """See the module's docstring. Keys of all tables are sorted."""

    digest_of_split: dict[str, str]
    schemas: dict[str, str]
    """document type -> digest of its target schema"""
    settings: dict[str, str]
    """settings section -> digest"""
    splits: dict[str, Counts]
    by_type: dict[str, dict[str, Counts]]
    """type -> split -> counts"""
    by_vendor: dict[str, dict[str, Counts]]
    by_stratum: dict[str, dict[str, Counts]]
    target_characters: dict[str, Lengths]
    """split -> lengths of the targets"""
    target_tokens: dict[str, Lengths] | None
    visual_tokens: dict[str, Lengths]
    unplaced: dict[str, int]
    """field (type, then name; rows as line_items[]) -> label values that stand on no page"""
    labelled_documents: int
    dropped_documents: int
    """left out because a value was unplaced and the setting says drop"""
    undecided: dict[str, int]
    """reason -> pages without a target"""
    ignored_keys: dict[str, tuple[str, ...]]
    """type -> label keys that its schema does not have"""
    twin_groups: dict[int, int]
    """documents in a twin group -> how many such groups"""
    twin_reasons: dict[str, int]
    """why documents are twins -> links of that kind"""
    left_out: dict[str, int]
    """reason -> documents in no split"""
    unknown_held_out: tuple[str, ...]
    leaks: tuple[Leak, ...]

    def to_markdown(self) -> str:
        return _markdown(self)


def dataset_card(
    rows: Mapping[Split, Sequence[IndexRow]],
    digests: Mapping[Split, str],
    assignment: Assignment,
    targets: Iterable[VendorTargets],
    settings: Mapping[str, str],
    leaks: Sequence[Leak],
    count_tokens: Callable[[str], int] | None = None,
) -> DatasetCard:
    """The card of written splits. rows: split_rows(...); digests: of the three JSONL; settings: section -> digest;
    count_tokens: of a target, by the base model's tokenizer."""
    unplaced: Counter[str] = Counter()
    undecided: Counter[str] = Counter()
    ignored: dict[str, set[str]] = defaultdict(set)
    labelled: set[str] = set()
    dropped: set[str] = set()
    for vendor in targets:
        labelled |= {target.document for target in vendor.targets} | set(vendor.dropped_documents)
        labelled |= {pages.document for pages in vendor.undecided}
        dropped |= set(vendor.dropped_documents)
        unplaced.update(f"{vendor.type} {_field(value.pointer)}" for value in vendor.unplaced)
        for pages in vendor.undecided:
            undecided[_reason(pages.reason)] += len(pages.pages)
        if vendor.ignored_keys:
            ignored[vendor.type] |= set(vendor.ignored_keys)
    every = {split: list(rows.get(split, ())) for split in SPLITS}
    return DatasetCard(
        digest_of_split={split: digests[split] for split in SPLITS if split in digests},
        schemas=dict(sorted({row.type: row.schema_digest for part in every.values() for row in part}.items())),
        settings=dict(sorted(settings.items())),
        splits={split: _counts(part) for split, part in every.items()},
        by_type=_table(every, lambda row: row.type),
        by_vendor=_table(every, lambda row: row.vendor),
        by_stratum=_table(every, lambda row: row.stratum),
        target_characters={split: _lengths(len(row.target) for row in part) for split, part in every.items() if part},
        target_tokens=_token_lengths(every, count_tokens) if count_tokens else None,
        visual_tokens={
            split: _lengths((row.width // GRID_PX) * (row.height // GRID_PX) for row in part) for split, part in every.items() if part
        },
        unplaced=dict(sorted(unplaced.items())),
        labelled_documents=len(labelled),
        dropped_documents=len(dropped),
        undecided=dict(sorted(undecided.items())),
        ignored_keys={type: tuple(sorted(keys)) for type, keys in sorted(ignored.items())},
        twin_groups=assignment.groups.sizes,
        twin_reasons=dict(sorted(Counter(link.reason for link in assignment.groups.links).items())),
        left_out=dict(sorted(Counter(out.reason for out in assignment.left_out).items())),
        unknown_held_out=assignment.unknown_held_out,
        leaks=tuple(leaks),
    )


def _token_lengths(every: Mapping[Split, list[IndexRow]], count_tokens: Callable[[str], int]) -> dict[str, Lengths]:
    known: dict[str, int] = {}  # negatives repeat the target of their clean page
    for part in every.values():
        for row in part:
            if row.target not in known:
                known[row.target] = count_tokens(row.target)
    return {split: _lengths(known[row.target] for row in part) for split, part in every.items() if part}


def _counts(rows: Iterable[IndexRow]) -> Counts:
    rows = list(rows)
    pages = {(row.document, row.page) for row in rows if row.stratum == CLEAN}
    return Counts(examples=len(rows), pages=len(pages), documents=len({row.document for row in rows}))


def _table(every: Mapping[Split, list[IndexRow]], key: Callable[[IndexRow], str]) -> dict[str, dict[str, Counts]]:
    parts: dict[str, dict[str, list[IndexRow]]] = defaultdict(lambda: {split: [] for split in SPLITS})
    for split, rows in every.items():
        for row in rows:
            parts[key(row)][split].append(row)
    return {name: {split: _counts(rows) for split, rows in parts[name].items()} for name in sorted(parts)}


def _lengths(values: Iterable[int]) -> Lengths:
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]  # noqa: E731
    return Lengths(least=ordered[0], median=at(0.5), p95=at(0.95), most=ordered[-1], total=sum(ordered))


def _field(pointer: str) -> str:
    """/line_items/3/amount -> line_items[].amount; a whole row -> line_items[]"""
    parts = pointer.split("/")[1:]
    if parts[:1] == ["pages"] and len(parts) > 2 and parts[1].isdigit():
        parts = parts[2:]  # a label given per page
    return ".".join("[]" if part.isdigit() else part for part in parts).replace(".[]", "[]")


def _reason(reason: str) -> str:
    """Reasons without their numbers, so that they can be counted."""
    return " ".join("n" if word.isdigit() else word for word in reason.split())


# --- Markdown -----------------------------------------------------------------------------------------------------------------


def _markdown(card: DatasetCard) -> str:
    lines = ["# Dataset card", ""]
    lines += _rows(("split", "examples", "pages", "documents", "digest"), [
        (split, f"{c.examples:,}", f"{c.pages:,}", f"{c.documents:,}", f"`{card.digest_of_split.get(split, '-')[:16]}`")
        for split, c in card.splits.items()
    ])  # fmt: skip
    verdict = "none: no document, twin, page picture or example stands in two splits" if not card.leaks else f"**{len(card.leaks)} found**"
    lines += ["", f"Leaks: {verdict}.", ""]
    if card.leaks:
        found = [(leak.kind, leak.key[:16], ", ".join(leak.splits), ", ".join(leak.examples[:3])) for leak in card.leaks[:20]]
        lines += [*_rows(("leak", "key", "splits", "examples"), found), ""]
    for title, table in (("type", card.by_type), ("stratum", card.by_stratum), ("vendor", card.by_vendor)):
        lines += [f"## By {title}: examples (documents)", ""]
        shown = list(table.items())[:MOST_VENDORS]
        lines += _rows((title, *SPLITS), [(name, *(_cell(parts[split]) for split in SPLITS)) for name, parts in shown])
        if len(table) > len(shown):
            lines.append(f"\n... and {len(table) - len(shown)} more; the JSON has all.")
        lines.append("")
    lines += ["## Lengths", ""]
    measured = {"target characters": card.target_characters, "target tokens": card.target_tokens or {}, "visual tokens": card.visual_tokens}
    lines += _rows(("length", "split", "least", "median", "95 %", "most", "total"), [
        (name, split, *(f"{n:,}" for n in (v.least, v.median, v.p95, v.most, v.total)))
        for name, by_split in measured.items() for split, v in by_split.items()
    ])  # fmt: skip
    lines += [
        "",
        "## Labels",
        "",
        f"{card.labelled_documents:,} labelled documents, {card.dropped_documents:,} dropped for a value that stands nowhere.",
        "",
    ]
    if card.unplaced:
        lines += [*_rows(("field", "label values that stand on no page"), [(name, f"{n:,}") for name, n in card.unplaced.items()]), ""]
    if card.undecided:
        lines += [*_rows(("no target, because", "pages"), [(why, f"{n:,}") for why, n in card.undecided.items()]), ""]
    for type, keys in card.ignored_keys.items():
        lines += [f"Keys of {type} labels that the schema does not have: {', '.join(keys)}.", ""]
    lines += ["## Twins", ""]
    lines += _rows(("documents in the group", "groups"), [(str(size), f"{n:,}") for size, n in card.twin_groups.items()])
    lines += ["", "Links by reason: " + (", ".join(f"{why} {n:,}" for why, n in card.twin_reasons.items()) or "none") + ".", ""]
    if card.left_out:
        lines += [*_rows(("left out, because", "documents"), [(why, f"{n:,}") for why, n in card.left_out.items()]), ""]
    if card.unknown_held_out:
        lines += [f"Held-out vendors without a document: {', '.join(card.unknown_held_out)}.", ""]
    lines += ["## Digests", ""]
    named = [("schema", card.schemas), ("settings", card.settings), ("split", card.digest_of_split)]
    lines += _rows(("what", "name", "digest"), [(what, name, f"`{digest}`") for what, table in named for name, digest in table.items()])
    return "\n".join(lines) + "\n"


def _cell(counts: Counts) -> str:
    return f"{counts.examples:,} ({counts.documents:,})" if counts.examples else "-"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *escaped)]
