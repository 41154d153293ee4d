"""The command line. Every command exits 0 on success and 2 with one clear line on bad input.

With --json a command prints one JSON document on stdout; everything meant for people goes to stderr.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from extraction_assets import __version__
from extraction_assets.dataset.export import FORMATS
from extraction_assets.errors import InputError
from extraction_assets.home import HOME_VARIABLE, PROJECT, Home

if TYPE_CHECKING:
    from extraction_assets.commands import LabelAudit
    from extraction_assets.documents.ingest import IngestReport

EXIT_BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that is no UTF-8 is no reason to stop
    options = _parser().parse_args(arguments)
    _quiet_libraries()
    try:
        return options.run(options) or 0
    except InputError as error:
        return _bad_input(str(error))
    except BrokenPipeError:  # `extraction status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _bad_input("interrupted; run the same command again to go on")
    except Exception as error:
        line = _system_trouble(error)
        if line is None:
            traceback.print_exc()
            return 1
        return _bad_input(line)


def _quiet_libraries() -> None:
    """Libraries' notes to their own developers are not for our users; training's process inherits this."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    for category in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", module="dagster")


def say(line: str) -> None:
    """To people: stderr."""
    print(line, file=sys.stderr, flush=True)


def _bad_input(line: str) -> int:
    say(f"extraction: {line}")
    return EXIT_BAD_INPUT


def _system_trouble(error: BaseException | None) -> str | None:
    """One line where the cause is the disk (no room, read-only, no rights; databases wrap it in errors of their own) or a
    path that cannot be used (too long, links in a circle, a folder where a file should be)."""
    path_trouble = error if isinstance(error, OSError) and error.filename else None
    while error is not None:
        text = str(error)
        if isinstance(error, OSError) and error.errno in (28, 30, 13, 122):
            return (
                f"{error.filename or 'the home'}: {error.strerror}. Free space or rights, then run the same command again; nothing is lost"
            )
        if "disk is full" in text or "disk I/O error" in text or "readonly database" in text:
            return "the home's disk: cannot be written (full or read-only). Free space or rights, then run the same command again; nothing is lost"
        if "file is not a database" in text or "disk image is malformed" in text:
            return "the home's dagster/ folder: a database in it is damaged. Restore it from a backup, or delete it: all is then made anew"
        error = error.__cause__ or error.__context__
    return f"{str(path_trouble.filename)[:80]}: {path_trouble.strerror}. Correct the path or what lies there" if path_trouble else None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_bad_input(f"{message} (see `{self.prog} --help`)"))


def _parser() -> argparse.ArgumentParser:
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

    init = command("init", _init, "make a new home: commented settings and the schemas")
    init.add_argument("folder", type=Path)

    ingest = command("ingest", _ingest, "bring PDFs, scans and their label files into landing/")
    ingest.add_argument("source", type=Path, help="a folder, or a manifest.jsonl (or a folder that holds one)")
    ingest.add_argument("--type", dest="type_name", help="document type: the name of a schema")
    ingest.add_argument("--vendor", help="vendor name (default: the sub-folder's name)")
    ingest.add_argument(
        "--reviewed",
        action="store_true",
        help="SRC holds the endpoint's answers as people have corrected them: reviewed.jsonl or *.review.json",
    )
    with_json(ingest)

    audit = command("audit", _audit, "labels to look at first: a ranked list, to Label Studio and back")
    audit.add_argument(
        "--export", choices=("label-studio",), help="write them as tasks, with the page images, the reasons and the labelling config"
    )
    audit.add_argument("--out", type=Path, metavar="DIR", help="folder of the export")
    audit.add_argument("--inline", action="store_true", help="page images inside the tasks instead of beside them")
    audit.add_argument(
        "--import", type=Path, dest="judged", metavar="FILE", help="judged tasks, as Label Studio exports them (JSON or JSON-MIN)"
    )
    with_json(audit)

    status = command("status", _status, "what is stale, and why")
    with_json(status)

    update = command("update", _update, "materialize what is stale, upstream first, nothing else")
    update.add_argument("--to", metavar="ASSET", action="append", help="only this asset and what stands above it")
    with_json(update)

    dataset = command("dataset", _dataset, "where the splits are, and their card; the same splits for another trainer")
    dataset.add_argument("--export", choices=FORMATS, help="write them for qwen-vl-finetune, LLaMA-Factory, ms-swift or TRL, with a config")
    dataset.add_argument("--out", type=Path, metavar="DIR", help="folder of the export (default: exports/ in the home)")
    with_json(dataset)

    plan = command("plan", _plan, "memory, steps and time of the training to come")
    plan.add_argument(
        "--gpu",
        metavar="NAME",
        help="L4, A10, A100-40, A100-80, H100 or H200, or another's memory and bf16 TFLOP/s as 48GB:362 (default: this CPU)",
    )
    with_json(plan)

    adopt = command(
        "adopt", _adopt, "an adapter that another trainer made of an export, as the challenger: update answers, scores and serves it"
    )
    adopt.add_argument("adapter", type=Path, metavar="DIR", help="folder that the trainer saved it to (adapter_model.safetensors)")
    adopt.add_argument("--export", type=Path, metavar="DIR", help="the export it was trained on (default: the one that its folder lies in)")
    with_json(adopt)

    evaluate = command("evaluate", _evaluate, "score any system's predictions against gold targets")
    evaluate.description = (
        'PRED: lines {"id", "text"} (the raw answer; optional "finish_reason"). GOLD: lines {"id", "target", "vendor", "stratum"}. '
        'The schema may give each field an "x-type": id, text, date, amount, number or code.'
    )
    evaluate.add_argument("predictions", type=Path, metavar="PRED.jsonl")
    evaluate.add_argument("gold", type=Path, metavar="GOLD.jsonl")
    evaluate.add_argument("--schema", type=Path, required=True, help="target schema of the documents")
    evaluate.add_argument("--per-document", type=Path, metavar="OUT.jsonl", help="one line of scores a document")
    with_json(evaluate)

    predict = command("predict", _predict, "strict JSON for PDFs or images, page by page")
    predict.add_argument("files", type=Path, nargs="+", metavar="FILE")
    predict.add_argument("--type", dest="type_name", help="document type (default: the home's only one)")
    predict.add_argument("--adapter", type=Path, help="adapter folder (default: the champion)")
    predict.add_argument(
        "--documents", action="store_true", help="one answer a file, merged from its pages, with the conflicts between them"
    )
    predict.add_argument("--endpoint", metavar="URL", help="answer there instead of here: what `extraction serve` or Azure ML serves")
    with_json(predict)

    serve = command("serve", _serve, "the endpoint on this machine: POST a page image to /score, strict JSON comes back")
    serve.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle's folder (default: the home's latest serving_bundle)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    serve.add_argument("--port", type=int, default=5001)
    serve.add_argument("--page", action="store_true", help="also /page: drop a PDF or a picture, see what is read and where it stands")
    serve.add_argument(
        "--vllm", metavar="URL", help="vLLM's server on this machine holds the model (http://127.0.0.1:8000); bundles with merged weights"
    )

    deploy = command("deploy", _deploy, "a bundle onto an Azure ML endpoint: as files for `az` (--out), or rolled out (--target)")
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

    merge = command("merge", _merge, "an adapter merged into the base, for servers that take no adapters; test pages answered by both")
    merge.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    merge.add_argument("--adapter", type=Path, help="adapter folder (default: the champion)")
    merge.add_argument("--pages", type=int, default=32, metavar="N", help="test pages to compare on (default: 32; 0: none)")
    with_json(merge)

    render = command("render", _render, "page images of any PDFs, in the sandbox, outside the graph")
    render.add_argument("files", type=Path, nargs="+", metavar="FILE")
    render.add_argument("--out", type=Path, required=True)
    render.add_argument("--dpi", type=float)
    with_json(render)

    lineage = command("lineage", _lineage, "from an adapter, a split, a page image or an example back to its PDFs and labels")
    lineage.add_argument("what", metavar="DIGEST-OR-PATH")
    with_json(lineage)

    check = command("check", _check, "read the whole store: is everything there, and as its digest says?")
    check.add_argument("--repair", action="store_true", help="remove what is damaged and the values that need it: update makes them again")
    with_json(check)

    ui = command("ui", _ui, "open Dagster on this home: the graph, its runs, the sensor and the nightly schedule")
    ui.add_argument("--port", type=int, default=3000)

    demo = command("demo", _demo, "the whole graph on generated vendors and the embedded base model")
    demo.add_argument("--seed", type=int, default=1)
    demo.add_argument("--keep", action="store_true", help="go on with an existing demo home instead of making it anew")
    return parser


def _print_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON's own escapes, where the terminal has no such character or the name is no UTF-8
        text = json.dumps(value, indent=1)
    print(text)


# --- a home ---------------------------------------------------------------------------------------------------------------


def _init(options: Any) -> None:
    home = Home.create(options.folder)
    say(f"{home.root} is a home. Next: extraction --home {options.folder} ingest SRC --type {'|'.join(home.types())}")


def _ingest(options: Any) -> int | None:
    from extraction_assets.commands import ingest_command

    report = ingest_command(Home.open(options.home), options.source, options.type_name, options.vendor, say, options.reviewed)
    return _ingested(options, report, f"{options.source}")


def _ingested(options: Any, report: IngestReport, source: str) -> int | None:
    for refusal in report.refused:
        say(f"refused {refusal.file}: {refusal.reason}: {refusal.detail}")
    for replacement in report.replaced:
        say(replacement.line())
    confirmed = f"{report.confirmed} confirmed, " if report.confirmed else ""
    say(f"{report.added} added, {confirmed}{report.unchanged} unchanged, {len(report.refused)} refused")
    if options.json:
        _print_json(report.as_json())
    if report.refused and not report.added and not report.unchanged and not report.confirmed:
        return _bad_input(f"{source}: none of {len(report.refused)} files could be taken; first: {report.refused[0].detail}")
    return None


def _audit(options: Any) -> int | None:
    from extraction_assets.commands import audit_command, export_audit, import_audit

    home = Home.open(options.home)
    if options.judged is not None:
        if options.export or options.out or options.inline:
            raise InputError("--import", "stands beside options of an export", do="Import and export one after the other")
        report, unjudged = import_audit(home, options.judged, say)
        if unjudged:
            say(f"{unjudged} tasks not judged or skipped")
        return _ingested(options, report, str(options.judged))
    if (options.export is None) != (options.out is None) or (options.inline and options.export is None):
        raise InputError("--export", "needs --out DIR, and --out and --inline need it", do="Say --export label-studio --out DIR")
    audit = audit_command(home)
    written = export_audit(home, audit, options.out, options.inline) if options.export else []
    say(f"{len(audit.doubtful)} of {audit.labels} labels have signs against them; {_heard(audit)}")
    if options.json:
        _print_json({**audit.as_json(), **({"written": [str(path) for path in written]} if options.export else {})})
        return None
    for document, label in audit.doubtful:
        print(f"{label.weight:.2f}  {document.label.file}")
        for doubt in label.doubts:
            print(f"      {doubt.field}: {doubt.why} ({doubt.sign})")
    for path in written:
        print(f"import {path} into a project with the config {path.with_name('label_config.xml')}")
    if written and not options.inline:
        say(
            f"images: start Label Studio with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={options.out.resolve().parent}"
        )
    return None


def _heard(audit: LabelAudit) -> str:
    if audit.champion is None:
        return "no champion was heard: none has answered yet"
    return f"champion {audit.champion[:12]} was heard on {audit.read_pages} pages of val and test"


def _status(options: Any) -> int | None:
    from extraction_assets.commands import status_command

    statuses, problems = status_command(Home.open(options.home))
    if options.json:
        _print_json([{"asset": s.asset, "partition": s.partition, "state": s.state, "reasons": list(s.reasons)} for s in statuses])
    else:
        for status in statuses:
            if status.state != "fresh":
                print(f"{status.name}: {status.state}: {'; '.join(status.reasons)}")
        counts = {state: sum(status.state == state for status in statuses) for state in ("fresh", "stale", "missing")}
        print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return _problems(problems)


def _update(options: Any) -> int | None:
    from extraction_assets.commands import update_command

    walk, problems = update_command(Home.open(options.home), options.to, say)
    if options.json:
        _print_json([{"asset": row.asset, "partition": row.partition, "run": row.run, "ok": row.ok} for row in walk.ran])
    failures = walk.failures
    say(f"{sum(row.ok for row in walk.ran)} materialized" + (f", {len(failures)} failed" if failures else ""))
    if failures:
        return _bad_input(failures[0] + (f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""))
    return _problems(problems)


def _problems(problems: Sequence[InputError]) -> int | None:
    for problem in problems:
        _bad_input(str(problem))
    return EXIT_BAD_INPUT if problems else None


def _dataset(options: Any) -> None:
    from extraction_assets.commands import dataset_command, export_command
    from extraction_assets.dataset.export.trainer_format import not_carried_over

    home = Home.open(options.home)
    if options.export is not None:
        export = export_command(home, options.export, options.out)
        for line in not_carried_over(home.settings().training):
            say(f"warning: the config does not carry over {line}; set it there in the trainer's own way")
        if options.json:
            _print_json(export.as_json())
        else:
            print("\n".join(f"{split}: {it.examples} examples in {export.folder / it.file}" for split, it in export.splits.items()))
            print(f"config: {export.folder / export.config}")
        return
    if options.out is not None:
        raise InputError("--out", "says where an export goes", do="Say --export too, or leave it out")
    card, markdown = dataset_command(home)
    if options.json:
        _print_json(card)
    else:
        print(markdown)


def _plan(options: Any) -> None:
    from extraction_assets.commands import plan_command

    plan, markdown = plan_command(Home.open(options.home), options.gpu)
    if options.json:
        _print_json(plan)
    else:
        print(markdown)


def _ui(options: Any) -> None:
    """Replaces this process by `dagster dev`."""
    from extraction_assets.automation.instance import open_instance

    home = Home.open(options.home)
    home.settings()  # a broken settings.yaml is one clear line here and a traceback in the browser later
    open_instance(home).dispose()
    environment = {**os.environ, HOME_VARIABLE: str(home.root), "DAGSTER_HOME": str(home.dagster)}
    dagster = str(Path(sys.executable).with_name("dagster"))
    say(f"Dagster on {home.root}: http://127.0.0.1:{options.port}")
    os.execve(dagster, [dagster, "dev", "--workspace", str(PROJECT / "workspace.yaml"), "--port", str(options.port)], environment)


def _lineage(options: Any) -> None:
    from extraction_assets.commands import lineage_command

    chain = lineage_command(Home.open(options.home), options.what)
    if options.json:
        _print_json(chain.as_json())
    else:
        print(chain.text())


# --- outside a home -------------------------------------------------------------------------------------------------------


def _adopt(options: Any) -> None:
    from extraction_assets.commands import adopt_command

    adopted = adopt_command(Home.open(options.home), options.adapter, options.export, say)
    audit = adopted["manifest"]["audit"]
    modules = sum(count["modules"] for count in audit["trainable"].values())
    say(
        f"{adopted['adapter'][:12]}: {modules} linears, {audit['trainable_parameters']:,} parameters, trained by {adopted['manifest']['trainer']}"
    )
    say(f"It is the challenger now. Next: extraction --home {options.home} update")
    if options.json:
        _print_json(adopted)


def _evaluate(options: Any) -> None:
    from extraction_assets.evaluation.harness import evaluate_files
    from extraction_assets.evaluation.table import print_table
    from extraction_assets.schema import TargetSchema
    from extraction_assets.settings import EvaluationSettings

    report = evaluate_files(
        options.predictions,
        options.gold,
        TargetSchema.load(options.schema),
        per_document=options.per_document,
        settings=EvaluationSettings(),
    )
    if options.json:
        _print_json(report)
    else:
        print_table(report)


def _predict(options: Any) -> int | None:
    from extraction_assets.commands import document_answers, predict_command, predict_remotely

    home = Home.open(options.home)
    if options.endpoint is not None and options.adapter is not None:
        raise InputError(
            "--adapter", "cannot be chosen from here", do="The endpoint answers with its bundle's; leave --adapter or --endpoint out"
        )
    if options.endpoint is not None:
        rows, refused = predict_remotely(home, options.files, options.type_name, options.endpoint)
    else:
        rows, refused = predict_command(home, options.files, options.type_name, options.adapter, say)
    if options.documents:
        _print_documents(document_answers(home, rows, options.type_name), options.json)
    elif options.json:
        _print_json(rows)
    else:
        for row in rows:
            answer = json.dumps(row["answer"], ensure_ascii=False) if row["answer"] is not None else f"no strict JSON: {row['text']!r}"
            print(f"{row['file']} page {row['page']}: {answer}")
    return _problems(refused)


def _print_documents(documents: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        _print_json(documents)
        return
    for document in documents:
        print(f"{document['file']}: {json.dumps(document['answer'], ensure_ascii=False)}")
        if document["unread_pages"]:
            print(f"  not complete: no strict JSON for page {', '.join(map(str, document['unread_pages']))}")
        for conflict in document["conflicts"]:
            values = ", ".join(f"{value['value']!r} on page {value['page']}" for value in conflict["values"])
            print(f"  {conflict['field']}: {values}; taken: {conflict['taken']!r}")


def _serve(options: Any) -> None:
    from extraction_assets.commands import serve_command

    serve_command(options.home, options.bundle, options.host, options.port, say, options.page, options.vllm)


def _deploy(options: Any) -> int | None:
    from extraction_assets.commands import deploy_command

    if options.target:
        return _roll_out(options)
    if options.dry_run:
        raise InputError("--dry-run", "goes with --target", do="--out deploys nothing anyway")
    written = deploy_command(Home.open(options.home), options.bundle, options.out)
    if options.json:
        _print_json([str(path) for path in written])
    else:
        print("\n".join(map(str, written)))
        say("nothing was deployed: rollout.sh does that, with az, step by step")
    return None


def _roll_out(options: Any) -> int | None:
    from extraction_assets.commands import rollout_command

    plan, report = rollout_command(Home.open(options.home), options.bundle, options.target, options.dry_run, say)
    if options.json:
        _print_json({**report.as_json(), "plan": plan.as_json()})
    else:
        print("\n".join(plan.lines()))
        for step in report.steps:
            print(", ".join(f"{key} {value}" for key, value in step.items()))
        print(f"{report.target}: {report.outcome}: {report.deployment} on {report.endpoint}")
    for line in report.left:
        say(f"left: {line}")
    return _bad_input(f"{report.outcome}: {report.failed}") if report.failed else None


def _merge(options: Any) -> None:
    from extraction_assets.commands import merge_command

    if options.pages < 0:
        raise InputError("--pages", f"found {options.pages}", "0 or more")
    merged, compared = merge_command(Home.open(options.home), options.adapter, options.out, options.pages, say)
    if options.json:
        _print_json(merged)
    else:
        print(f"{merged['folder']}: base and adapter as one, {merged['weights']} weights changed")
        print(f"rounding to the base's type took {merged['rounding']:.1%} of the adapter at most (root mean square, worst weight)")
        print(f"{compared.equal} of {len(compared.pages)} test pages have the same answer as with the adapter beside the base")
        for page in compared.different:
            print(f"  {page.id}: {page.right[0]} of {page.fields} fields right with the adapter beside the base, {page.right[1]} merged")
        if compared.accuracy:
            print("fields right: {:.3f} with the adapter beside the base, {:.3f} merged".format(*compared.accuracy))


def _check(options: Any) -> int | None:
    from extraction_assets.commands import check_command

    home = Home.open(options.home)
    check, stale = check_command(home, options.repair, say)
    if options.json:
        _print_json({**check.as_json(), "repaired": options.repair, "stale": stale})
    else:
        for finding in check.findings:
            print(f"{finding.path}: {finding.problem} ({', '.join(finding.assets) or 'needed by no latest value'})")
        print(
            f"{check.objects} objects and {check.folders} adapters, {check.bytes / 1e6:,.1f} MB: "
            f"{len(check.findings)} damaged or missing, {len(check.leftovers)} leftovers of killed writers"
            + (f", {len(check.unshared)} not in {home.store.shared.address}" if home.store.shared else "")
        )
    if check.unshared and not options.repair:
        say(f"{check.unshared[0]} and {len(check.unshared) - 1} more are not in the shared store. Run `check --repair`, which sends them")
    if not check.findings:
        return None
    if not options.repair:
        return _bad_input(
            f"{home.root / 'store'}: {len(check.findings)} things are damaged or missing. Run `check --repair`, then `update`"
        )
    say(f"stale now: {', '.join(stale) or 'nothing'}. Run `extraction --home {home.root} update`")
    lost = [finding for finding in check.findings if not finding.can_be_made_again]
    return _bad_input(f"{lost[0].path}: cannot be made again and was left; restore it from a backup ({len(lost)} such)") if lost else None


def _render(options: Any) -> None:
    from extraction_assets.commands import render_command

    outcomes = render_command(options.home, options.files, options.out, options.dpi)
    if options.json:
        _print_json(outcomes)
    else:
        for outcome in outcomes:
            reason = f": {outcome['reason']}" if outcome["reason"] else ""
            print(f"{outcome['file']}: {outcome['outcome']}, {len(outcome['pages'])} pages{reason}")


def _demo(options: Any) -> int | None:
    from extraction_assets.demonstration import run_demo

    return run_demo(options.home if options.home != PROJECT / "data" else PROJECT / "demo_home", options.seed, options.keep, say)


if __name__ == "__main__":
    sys.exit(main())
