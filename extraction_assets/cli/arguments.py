"""The commands and their arguments, and which function carries each out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from extraction_assets import __version__
from extraction_assets.cli import on_home, on_pages
from extraction_assets.cli.speech import bad_input
from extraction_assets.dataset.export import FORMATS
from extraction_assets.home import HOME_VARIABLE, PROJECT


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(bad_input(f"{message} (see `{self.prog} --help`)"))


def parser_of_commands() -> argparse.ArgumentParser:
    parser = _Parser(prog="extraction", description="Teach Qwen3-VL to read your vendors' PDFs, and keep it taught.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--home",
        type=Path,
        default=Path(os.environ.get(HOME_VARIABLE, PROJECT / "data")),
        help="folder with settings.yaml, landing/, store/ (default: data/)",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[Any], int | None], help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        # also behind the command; the top-level default holds where it stands in neither place
        sub.add_argument("--home", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return sub

    def with_json(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--json", action="store_true", help="one JSON document on stdout")

    init = command("init", on_home.init, "make a new home: commented settings and the schemas")
    init.add_argument("folder", type=Path)

    ingest = command("ingest", on_home.ingest, "bring PDFs, scans and their label files into landing/")
    ingest.add_argument("source", type=Path, help="a folder, or a manifest.jsonl (or a folder that holds one)")
    ingest.add_argument("--type", dest="type_name", help="document type: the name of a schema")
    ingest.add_argument("--vendor", help="vendor name (default: the sub-folder's name)")
    ingest.add_argument(
        "--reviewed",
        action="store_true",
        help="SRC holds the endpoint's answers as people have corrected them: reviewed.jsonl or *.review.json",
    )
    with_json(ingest)

    audit = command("audit", on_home.audit, "labels to look at first: a ranked list, to Label Studio and back")
    audit.add_argument(
        "--export", choices=("label-studio",), help="write them as tasks, with the page images, the reasons and the labelling config"
    )
    audit.add_argument("--out", type=Path, metavar="DIR", help="folder of the export")
    audit.add_argument("--inline", action="store_true", help="page images inside the tasks instead of beside them")
    audit.add_argument(
        "--import", type=Path, dest="judged", metavar="FILE", help="judged tasks, as Label Studio exports them (JSON or JSON-MIN)"
    )
    with_json(audit)

    status = command("status", on_home.status, "what is stale, and why")
    with_json(status)

    update = command("update", on_home.update, "materialize what is stale, upstream first, nothing else")
    update.add_argument("--to", metavar="ASSET", action="append", help="only this asset and what stands above it")
    with_json(update)

    dataset = command("dataset", on_home.dataset, "where the splits are, and their card; the same splits for another trainer")
    dataset.add_argument("--export", choices=FORMATS, help="write them for qwen-vl-finetune, LLaMA-Factory, ms-swift or TRL, with a config")
    dataset.add_argument("--out", type=Path, metavar="DIR", help="folder of the export (default: exports/ in the home)")
    with_json(dataset)

    plan = command("plan", on_home.plan, "memory, steps and time of the training to come")
    plan.add_argument(
        "--gpu",
        metavar="NAME",
        help="L4, A10, A100-40, A100-80, H100 or H200, or another's memory and bf16 TFLOP/s as 48GB:362 (default: this CPU)",
    )
    with_json(plan)

    adopt = command(
        "adopt", on_home.adopt, "an adapter that another trainer made of an export, as the challenger: update answers, scores and serves it"
    )
    adopt.add_argument("adapter", type=Path, metavar="DIR", help="folder that the trainer saved it to (adapter_model.safetensors)")
    adopt.add_argument("--export", type=Path, metavar="DIR", help="the export it was trained on (default: the one that its folder lies in)")
    with_json(adopt)

    evaluate = command("evaluate", on_pages.evaluate, "score any system's predictions against gold targets")
    evaluate.description = (
        'PRED: lines {"id", "text"} (the raw answer; optional "finish_reason"). GOLD: lines {"id", "target", "vendor", "stratum"}. '
        'The schema may give each field an "x-type": id, text, date, amount, number or code.'
    )
    evaluate.add_argument("predictions", type=Path, metavar="PRED.jsonl")
    evaluate.add_argument("gold", type=Path, metavar="GOLD.jsonl")
    evaluate.add_argument("--schema", type=Path, required=True, help="target schema of the documents")
    evaluate.add_argument("--per-document", type=Path, metavar="OUT.jsonl", help="one line of scores a document")
    with_json(evaluate)

    predict = command("predict", on_pages.predict, "strict JSON for PDFs or images, page by page")
    predict.add_argument("files", type=Path, nargs="+", metavar="FILE")
    predict.add_argument("--type", dest="type_name", help="document type (default: the home's only one)")
    predict.add_argument("--adapter", type=Path, help="adapter folder (default: the champion)")
    predict.add_argument(
        "--documents", action="store_true", help="one answer a file, merged from its pages, with the conflicts between them"
    )
    predict.add_argument("--endpoint", metavar="URL", help="answer there instead of here: what `extraction serve` or Azure ML serves")
    with_json(predict)

    serve = command("serve", on_pages.serve, "the endpoint on this machine: POST a page image to /score, strict JSON comes back")
    serve.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle's folder (default: the home's latest serving_bundle)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    serve.add_argument("--port", type=int, default=5001)
    serve.add_argument("--page", action="store_true", help="also /page: drop a PDF or a picture, see what is read and where it stands")
    serve.add_argument(
        "--vllm", metavar="URL", help="vLLM's server on this machine holds the model (http://127.0.0.1:8000); bundles with merged weights"
    )

    deploy = command("deploy", on_pages.deploy, "a bundle onto an Azure ML endpoint: as files for `az` (--out), or rolled out (--target)")
    way = deploy.add_mutually_exclusive_group(required=True)
    way.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for endpoint.yml, deployment.yml, rollout.sh and the container's files; deploys nothing",
    )
    way.add_argument("--target", choices=("fake", "azure"), help="azure: roll out there; fake: rehearse it on a stand-in on this machine")
    deploy.add_argument("--dry-run", action="store_true", help="with --target: the plan, what differs and the cost sheet; changes nothing")
    deploy.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle's folder (default: the home's latest serving_bundle)")
    with_json(deploy)

    merge = command(
        "merge", on_pages.merge, "an adapter merged into the base, for servers that take no adapters; test pages answered by both"
    )
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    merge.add_argument("--adapter", type=Path, help="adapter folder (default: the champion)")
    merge.add_argument("--pages", type=int, default=32, metavar="N", help="test pages to compare on (default: 32; 0: none)")
    with_json(merge)

    render = command("render", on_pages.render, "page images of any PDFs, in the sandbox, outside the graph")
    render.add_argument("files", type=Path, nargs="+", metavar="FILE")
    render.add_argument("--out", type=Path, required=True)
    render.add_argument("--dpi", type=float)
    with_json(render)

    lineage = command("lineage", on_home.lineage, "from an adapter, a split, a page image or an example back to its PDFs and labels")
    lineage.add_argument("what", metavar="DIGEST-OR-PATH")
    with_json(lineage)

    check = command("check", on_home.check, "read the whole store: is everything there, and as its digest says?")
    check.add_argument("--repair", action="store_true", help="remove what is damaged and the values that need it: update makes them again")
    with_json(check)

    ui = command("ui", on_home.ui, "open Dagster on this home: the graph, its runs, the sensor and the nightly schedule")
    ui.add_argument("--port", type=int, default=3000)

    demo = command("demo", on_home.demo, "the whole graph on generated vendors and the embedded base model")
    demo.add_argument("--seed", type=int, default=1)
    demo.add_argument("--keep", action="store_true", help="go on with an existing demo home instead of making it anew")
    return parser
