"""What the commands that answer, score, draw, merge, serve or deploy pages do, free of argument parsing and printing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.automation.instance import open_instance
from extraction_assets.commands.on_home import latest
from extraction_assets.dataset.chat import local_split
from extraction_assets.errors import InputError
from extraction_assets.home import Home
from extraction_assets.progress import terminal_bar
from extraction_assets.record import Record
from extraction_assets.settings import RenderSettings

if TYPE_CHECKING:
    from extraction_assets.inference.predict import RenderedPage
    from extraction_assets.inference.side_by_side import SideBySide
    from extraction_assets.serving.rollout import Plan, Report

Say = Callable[[str], None]

ENDPOINT_KEY = "EXTRACTION_ENDPOINT_KEY"
"""environment variable with the key of an endpoint that asks for one"""


def render_command(home_folder: Path, files: Sequence[Path], out: Path, dpi: float | None) -> list[dict[str, Any]]:
    """Works with or without a home; a home lends its render settings."""
    from extraction_assets.documents.rendering import render_files

    settings = Home.open(home_folder).settings().render if (home_folder / "settings.yaml").is_file() else RenderSettings()
    if dpi is not None:
        low, high = 18, 600
        if not low <= dpi <= high:
            raise InputError("--dpi", f"found {dpi:g}", f"{low} to {high}")
        settings = RenderSettings.from_json({**settings.model_dump(mode="json"), "dpi": dpi})
    outcomes = render_files(files, out, settings, progress=terminal_bar("render", "page"))
    return [outcome.as_json() for outcome in outcomes]


def predict_command(
    home: Home, files: Sequence[Path], type_name: str | None, adapter: Path | None, say: Say
) -> tuple[list[dict[str, Any]], list[InputError]]:
    """(one row a page; the files that could not be read). adapter: None is the champion, or the base model where there is none yet."""
    from extraction_assets.evaluation.strict_json import parse_answer
    from extraction_assets.inference.answers import Answerer
    from extraction_assets.inference.predict import predict_pages
    from extraction_assets.model.base import load_base
    from extraction_assets.training.adapter import verify_adapter

    settings = home.settings()
    schema = home.schema(type_name or _only_type(home)).on_wire(settings.targets.wire)
    adapter = adapter or _champion(home, say)
    if adapter is not None:
        schema = schema.as_taught(verify_adapter(adapter).schemas)
    pages, refused = _rendered(files, settings.render)
    if not pages:
        return [], refused
    answerer = Answerer.of(load_base(home.base_model()), adapter)
    rows = []
    for page in predict_pages(pages, schema, answerer, settings.decoding, progress=terminal_bar("predict", "page")):
        parsed = parse_answer(page.answer.text, page.answer.finish_reason)
        rows.append(
            {
                "file": page.file,
                "page": page.page,
                "answer": parsed.value if parsed.strict else None,
                "text": page.answer.text,
                "finish_reason": page.answer.finish_reason,
                "schema_valid": bool(parsed.strict and schema.is_valid(parsed.value)),
                "confidence": page.answer.confidence,
                "field_confidence": dict(page.answer.values),
                "timing": {"seconds": round(page.answer.seconds, 4), "tokens": page.answer.tokens},
            }
        )
    return rows, refused


def _rendered(files: Sequence[Path], settings: RenderSettings) -> tuple[list[RenderedPage], list[InputError]]:
    """(pages in the order of `files`; the files, or pages of them, that could not be drawn)."""
    from extraction_assets.documents.rendering import render_bytes
    from extraction_assets.inference.predict import RenderedPage

    pages: list[RenderedPage] = []
    refused: list[InputError] = []
    for file in files:
        try:
            rendered = render_bytes(file.read_bytes(), settings)
        except OSError as error:
            refused.append(InputError(str(file), f"cannot be read: {error.strerror or error}"))
            continue
        refused += [InputError(str(file), f"{refusal.reason}: {refusal.detail}") for refusal in rendered.refused]
        pages += [RenderedPage(str(file), p.record.page, p.png, p.record.width, p.record.height, p.text) for p in rendered.pages]
    return pages, refused


def predict_remotely(
    home: Home, files: Sequence[Path], type_name: str | None, endpoint: str
) -> tuple[list[dict[str, Any]], list[InputError]]:
    """predict_command by an endpoint: pages are drawn here, on its grid, and answered there.

    The key that it may ask for is taken from the environment (ENDPOINT_KEY).
    """
    from extraction_assets.serving.client import EndpointClient, Refused

    schema = home.schema(type_name or _only_type(home))
    with EndpointClient(endpoint, os.environ.get(ENDPOINT_KEY)) as client:
        pages, refused = _rendered(files, client.render_settings(home.settings().render))
        rows: dict[int, dict[str, Any]] = {}
        bar = terminal_bar("predict", "page")
        for index, told in client.score_each([page.png for page in pages], schema.name):
            page = pages[index]
            row = {"file": page.file, "page": page.page}
            if not isinstance(told, Refused):
                rows[index] = row | {
                    "answer": told["answer"],
                    "text": json.dumps(told["answer"], ensure_ascii=False, separators=(",", ":")),
                    "finish_reason": told["finish_reason"],
                    "schema_valid": schema.is_valid(told["answer"]),
                    "confidence": told["confidence"]["mean"],
                    "field_confidence": told["confidence"]["fields"],
                    "timing": {"seconds": round(told["timing"]["model_ms"] / 1000, 4), "tokens": told["timing"]["tokens"]},
                }
            elif told.code in ("answer_truncated", "answer_invalid"):  # read, but without an answer: as predict_command tells it
                finish = "length" if told.code == "answer_truncated" else "stop"
                nothing: dict[str, Any] = {"answer": None, "text": "", "schema_valid": False, "confidence": 0.0, "field_confidence": {}}
                rows[index] = row | nothing | {"finish_reason": finish, "timing": {"seconds": 0.0, "tokens": 0}}
            else:
                refused.append(InputError(f"{page.file} p{page.page}", f"{told.code}: {told.message}"))
            bar(len(rows) + len(refused), len(pages))
    return [rows[index] for index in sorted(rows)], refused


def _bundle_folder(home: Home) -> Path:
    value = latest(home, "serving_bundle")
    if value["bundle"] is None:
        raise InputError(
            str(home.root), "has no champion yet, so no bundle", do="Train one that is better than its base, or name a --bundle"
        )
    return home.store.folder(value["bundle"])


def deploy_command(home: Home, bundle: Path | None, out: Path) -> list[Path]:
    """Specs, container recipe and rollout for Azure ML. bundle: None is the home's latest."""
    from extraction_assets.serving.azure_files import write_specs
    from extraction_assets.serving.bundle import open_bundle

    settings = home.settings().deployment
    return write_specs(open_bundle(bundle or _bundle_folder(home)), settings, out)


def rollout_command(home: Home, bundle: Path | None, target: str, dry_run: bool, say: Say) -> tuple[Plan, Report]:
    """A bundle (None: the home's latest) onto its endpoint on Azure ML, or a rehearsal of that on this machine."""
    from extraction_assets.serving.azure_service import azure_service
    from extraction_assets.serving.bundle import open_bundle
    from extraction_assets.serving.rollout import rehearse, roll_out

    settings = home.settings().deployment
    opened = open_bundle(bundle or _bundle_folder(home))
    if target == "fake":
        return rehearse(opened, settings, dry_run, say)
    return roll_out(azure_service(settings), opened, settings, dry_run, say)


def serve_command(
    home_folder: Path, bundle: Path | None, host: str, port: int, say: Say, page: bool = False, vllm: str | None = None
) -> None:
    """bundle: None is the home's latest; vllm: where vLLM's server answers with the bundle's merged weights."""
    from extraction_assets.serving.supervisor import serve

    serve(bundle or _bundle_folder(Home.open(home_folder)), host, port, say, page, vllm)


def document_answers(home: Home, pages: Sequence[dict[str, Any]], type_name: str | None) -> list[dict[str, Any]]:
    """Rows of predict_command, merged file by file in the order given."""
    from extraction_assets.inference.documents import merge_pages

    schema = home.schema(type_name or _only_type(home))
    answers: dict[str, list[tuple[int, dict[str, Any] | None]]] = {}
    for page in pages:
        answers.setdefault(page["file"], []).append((page["page"], page["answer"]))
    return [{"file": file, **merge_pages(found, schema).as_json()} for file, found in answers.items()]


def merge_command(home: Home, adapter: Path | None, out: Path, most_pages: int, say: Say) -> tuple[dict[str, Any], SideBySide]:
    """Merge an adapter (None: the champion) into the home's base, then answer and score test pages with the adapter beside it and merged.

    A merged weight is rounded to the base's type once more than the adapter beside it, so a few answers may differ.
    """
    from extraction_assets.assets.report_source import split_schemas
    from extraction_assets.inference.answers import Answer, Answerer
    from extraction_assets.inference.page_answer import PagePrompt
    from extraction_assets.inference.side_by_side import SideBySide, side_by_side
    from extraction_assets.model.base import load_base
    from extraction_assets.model.examples import read_examples
    from extraction_assets.model.merging import merge_adapter
    from extraction_assets.training.adapter import verify_adapter

    settings = home.settings()
    found = adapter or _champion(home, say)
    if found is None:
        raise InputError("--adapter", "is needed: this home has no champion yet", "an adapter folder")
    taught = verify_adapter(found).schemas
    split = latest(home, "test_split")["jsonl"] if most_pages else None
    merge = merge_adapter(home.base_model(), found, out)

    def answers(of: str, base: str | Path, adapter: Path | None, prompts: Sequence[PagePrompt]) -> list[Answer]:
        return Answerer.of(load_base(base), adapter).answer(prompts, settings.decoding, terminal_bar(of, "page"))

    compared = SideBySide(())
    if split is not None:
        compared = side_by_side(
            read_examples(local_split(split, home.store))[:most_pages],
            split_schemas(home.store, split),
            taught,
            partial(answers, "with the adapter", home.base_model(), found),
            partial(answers, "merged", out, None),
        )
    accuracy = dict(zip(("beside", "merged"), compared.accuracy or (None, None), strict=True))
    return {
        **merge.to_json(),
        "folder": str(out),
        "pages": len(compared.pages),
        "equal_answers": compared.equal,
        "field_accuracy": accuracy,
        "compared": [page.to_json() for page in compared.pages],
    }, compared


def _only_type(home: Home) -> str:
    types = home.types()
    if len(types) != 1:
        raise InputError("--type", "is needed: this home has several document types", f"one of {', '.join(types)}")
    return types[0]


def _champion(home: Home, say: Say) -> Path | None:
    with open_instance(home) as instance:
        value = Record(instance, home).latest_value("champion_adapter")
    if not value or not value["adapter"]:
        say("no champion yet: the base model answers alone")
        return None
    return home.store.folder(value["adapter"])
