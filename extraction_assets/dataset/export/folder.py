"""The folder of an export: read, refused or written whole, reused.

    train.jsonl val.jsonl test.jsonl    the splits, image paths relative to the folder
    images/<digest>.png                 the page images, hard links where the file system allows
    train.yaml, train.sh, ...           the config, and what goes with it
    export.json                         what made the folder, and the digest of every file: it marks a finished export

Written under a temporary name and renamed, so a killed export leaves nothing that looks finished. Equal splits and settings give
equal bytes, wherever the folder lies.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extraction_assets.dataset.chat import ChatSchema, load_split
from extraction_assets.dataset.export import FORMATS, FormatName
from extraction_assets.dataset.export.llamafactory import LLAMAFACTORY
from extraction_assets.dataset.export.qwen import QWEN
from extraction_assets.dataset.export.swift import SWIFT
from extraction_assets.dataset.export.trainer_format import CONTROL_TOKENS, IMAGES, ExportExample, Recipe, TrainerFormat, training_run
from extraction_assets.dataset.export.trl import TRL
from extraction_assets.dataset.records import SPLITS, Split
from extraction_assets.errors import InputError
from extraction_assets.store import TEMPORARY_PREFIX, digest_bytes, digest_file, digest_of

MANIFEST = "export.json"
_FORMATS: dict[FormatName, TrainerFormat] = {it.name: it for it in (QWEN, LLAMAFACTORY, SWIFT, TRL)}
_INSTRUCTION, _TARGET = "/messages/0/content/1/text", "/messages/1/content/0/text"


@dataclass(frozen=True)
class ExportedSplit:
    file: str
    """name in the export's folder"""
    examples: int
    digest: str
    """of the exported file"""
    source: str
    """digest of the home's split"""


@dataclass(frozen=True)
class Export:
    """A finished export."""

    format: FormatName
    folder: Path
    splits: Mapping[Split, ExportedSplit]
    config: str
    """file that starts the training"""

    def as_json(self) -> dict[str, Any]:
        """Paths are absolute here, and relative in export.json."""
        return {
            "format": self.format,
            "folder": str(self.folder),
            "splits": {split: {**vars(it), "file": str(self.folder / it.file)} for split, it in self.splits.items()},
            "config": str(self.folder / self.config),
        }


@dataclass(frozen=True)
class _Page:
    """A page image of an export."""

    source: Path
    digest: str
    where: str
    """file and line that name it first"""


def export_splits(
    name: FormatName, splits: Mapping[Split, Path], recipe: Recipe, chat_schema: ChatSchema, exports: Path, out: Path | None = None
) -> Export:
    """The splits (JSONL files of the store) in the format of another trainer. out: default exports/<format>-<digest>.

    A finished export of the same splits and settings is reused. Raises InputError: a line that this trainer would misread or whose
    page it would resize, settings it cannot follow, no example to train on, a folder that holds something else.
    """
    form = _FORMATS[name]
    sources = {split: digest_file(splits[split]) for split in SPLITS}
    examples: dict[Split, list[ExportExample]] = {}
    pages: dict[str, _Page] = {}
    for split in SPLITS:
        examples[split] = _read(splits[split], form, chat_schema, pages)
    if not examples["train"]:
        raise InputError(str(splits["train"]), "no example to train on", do="Add labelled documents, then run update")
    run = training_run(recipe, (it for split in SPLITS for it in examples[split]), validates=bool(examples["val"]))
    written = {f"{split}.jsonl": _jsonl(form, examples[split]) for split in SPLITS}
    written |= {file: text.encode() for file, text in form.files(run).items()}
    manifest = _manifest(form, sources, examples, written, pages)
    folder = (out or exports / f"{name}-{digest_of(manifest)[:16]}").absolute()
    export = Export(form.name, folder, {split: ExportedSplit(**manifest["splits"][split]) for split in SPLITS}, form.config)
    if not _is_finished(folder, manifest):
        _write(folder, written, manifest, pages)
    return export


def _read(jsonl: Path, form: TrainerFormat, chat_schema: ChatSchema, pages: dict[str, _Page]) -> list[ExportExample]:
    """The examples of a split; their page images are added to `pages`, by name."""
    examples = []
    # a line is a record (a blank one is refused), and every page is on the 32-px grid: the chat record's schema says so
    for number, record in enumerate(load_split(jsonl, chat_schema), start=1):
        where, digest = f"{jsonl}:{number}", record.meta.page_digest
        image = f"{IMAGES}/{digest}.png"
        example = ExportExample(record.id, image, record.meta.width, record.meta.height, record.instruction, record.target)
        _require_readable(example, form, where, f"document {record.meta.document[:12]} of {record.meta.vendor}")
        pages.setdefault(image, _Page(jsonl.parent / record.image, digest, where))
        examples.append(example)
    return examples


def _require_readable(example: ExportExample, form: TrainerFormat, where: str, document: str) -> None:
    """Raises InputError on what the trainer would take for something else than it is. There is no way to quote it in any of them."""
    for pointer, what, text in ((_INSTRUCTION, "instruction", example.instruction), (_TARGET, "target", example.target)):
        for mark in (*CONTROL_TOKENS, *form.placeholders):
            if mark in text:
                do = (
                    "Change x-instruction in the type's schema"
                    if what == "instruction"
                    else f"Take {document} out of landing/ and run update"
                )
                found = f"the {what} holds {mark}, which {form.trainer} does not read as text"
                raise InputError(f"{where} {pointer}", found, do=f"{do}, or train here, where it is text like any other")
    if refusal := form.refusal(example):
        raise InputError(f"{where} {_INSTRUCTION}", refusal, do="Change x-instruction in the type's schema, or choose another format")
    area = example.width * example.height
    if area < form.smallest_page:
        expected = (
            f"{form.smallest_page:,} px or more: {form.trainer} enlarges smaller pages, and no argument of it keeps that from happening"
        )
        found = f"the page is {example.width} x {example.height} px = {area:,} px"
        raise InputError(f"{where} /meta", found, expected, "Raise render.dpi, or choose another format")


def _jsonl(form: TrainerFormat, examples: Sequence[ExportExample]) -> bytes:
    lines = (json.dumps(form.line(it), ensure_ascii=form.ascii_only, separators=(",", ":"), allow_nan=False) for it in examples)
    return "".join(f"{line}\n" for line in lines).encode()


def _manifest(
    form: TrainerFormat,
    sources: Mapping[Split, str],
    examples: Mapping[Split, Sequence[ExportExample]],
    written: Mapping[str, bytes],
    pages: Iterable[str],
) -> dict[str, Any]:
    digests = {file: digest_bytes(data) for file, data in sorted(written.items())}
    return {
        "format": form.name,
        "trainer": form.trainer,
        "config": form.config,
        "splits": {
            split: {
                "file": f"{split}.jsonl",
                "examples": len(examples[split]),
                "digest": digests[f"{split}.jsonl"],
                "source": sources[split],
            }
            for split in SPLITS
        },
        "files": digests,
        "images": len(set(pages)),
    }


def _is_finished(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether this very export lies there, whole. Raises InputError if something else does."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    expected, do = "a new or empty folder, or this very export", "Choose another --out, or delete it"
    if not folder.is_dir():
        raise InputError(str(folder), "is a file", expected, do)
    try:
        found = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        raise InputError(str(folder), "holds other files", expected, do) from None
    if found != manifest:
        other = found.get("format") if isinstance(found, dict) else None
        what = f"an export for {other}" if other in FORMATS else "something else"
        raise InputError(str(folder), f"holds {what}, of other splits or settings", expected, do)
    changed = [file for file, digest in manifest["files"].items() if not _holds(folder / file, digest)]
    if not changed and len(list((folder / IMAGES).glob("*.png"))) != manifest["images"]:
        changed = [IMAGES]
    if changed:
        raise InputError(str(folder / changed[0]), "was changed or removed since it was exported", do=do)
    return True


def _holds(path: Path, digest: str) -> bool:
    return path.is_file() and digest_file(path) == digest


def _write(folder: Path, written: Mapping[str, bytes], manifest: Mapping[str, Any], pages: Mapping[str, _Page]) -> None:
    temporary = folder.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
    try:
        (temporary / IMAGES).mkdir(parents=True)
        for image, page in sorted(pages.items()):
            _link(page, temporary / image)
        for file, data in (*written.items(), (MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")):
            _write_file(temporary / file, data)
        os.replace(temporary, folder)  # also onto an empty folder
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if folder.exists() and _is_finished(folder, manifest):  # another process was first
            return
        raise InputError(str(folder), f"cannot be written: {error.strerror or error}", do="Free space or rights, then run again") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _link(page: _Page, target: Path) -> None:
    if not page.source.is_file():
        raise InputError(page.where, f"page image {page.digest[:12]}... is missing from the store", do="Run update again")
    if digest_file(page.source) != page.digest:
        raise InputError(str(page.source), "does not hold what its name says", do="Delete this file and run update again")
    try:
        os.link(page.source, target)
    except OSError:  # another disk, or a file system without hard links
        shutil.copyfile(page.source, target)


def _write_file(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
