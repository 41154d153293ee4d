"""Commands on a home and its graph. Each takes the parsed arguments, prints, and returns an exit code or None for 0; libraries that take
their time to import are imported by the command that needs them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extraction_assets.cli.speech import bad_input, print_json, say, say_problems
from extraction_assets.errors import InputError
from extraction_assets.home import HOME_VARIABLE, PROJECT, Home

if TYPE_CHECKING:
    from extraction_assets.commands import LabelAudit
    from extraction_assets.documents.ingest import IngestReport


def init(options: Any) -> None:
    home = Home.create(options.folder)
    say(f"{home.root} is a home. Next: extraction --home {options.folder} ingest SRC --type {'|'.join(home.types())}")


def ingest(options: Any) -> int | None:
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
        print_json(report.as_json())
    if report.refused and not report.added and not report.unchanged and not report.confirmed:
        return bad_input(f"{source}: none of {len(report.refused)} files could be taken; first: {report.refused[0].detail}")
    return None


def audit(options: Any) -> int | None:
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
        print_json({**audit.as_json(), **({"written": [str(path) for path in written]} if options.export else {})})
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


def status(options: Any) -> int | None:
    from extraction_assets.commands import status_command

    statuses, problems = status_command(Home.open(options.home))
    if options.json:
        print_json([{"asset": s.asset, "partition": s.partition, "state": s.state, "reasons": list(s.reasons)} for s in statuses])
    else:
        for status in statuses:
            if status.state != "fresh":
                print(f"{status.name}: {status.state}: {'; '.join(status.reasons)}")
        counts = {state: sum(status.state == state for status in statuses) for state in ("fresh", "stale", "missing")}
        print(", ".join(f"{count} {state}" for state, count in counts.items()))
    return say_problems(problems)


def update(options: Any) -> int | None:
    from extraction_assets.commands import update_command

    walk, problems = update_command(Home.open(options.home), options.to, say)
    if options.json:
        print_json([{"asset": row.asset, "partition": row.partition, "run": row.run, "ok": row.ok} for row in walk.ran])
    failures = walk.failures
    say(f"{sum(row.ok for row in walk.ran)} materialized" + (f", {len(failures)} failed" if failures else ""))
    if failures:
        return bad_input(failures[0] + (f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""))
    return say_problems(problems)


def dataset(options: Any) -> None:
    from extraction_assets.commands import dataset_command, export_command
    from extraction_assets.dataset.export.trainer_format import not_carried_over

    home = Home.open(options.home)
    if options.export is not None:
        export = export_command(home, options.export, options.out)
        for line in not_carried_over(home.settings().training):
            say(f"warning: the config does not carry over {line}; set it there in the trainer's own way")
        if options.json:
            print_json(export.as_json())
        else:
            print("\n".join(f"{split}: {it.examples} examples in {export.folder / it.file}" for split, it in export.splits.items()))
            print(f"config: {export.folder / export.config}")
        return
    if options.out is not None:
        raise InputError("--out", "says where an export goes", do="Say --export too, or leave it out")
    card, markdown = dataset_command(home)
    if options.json:
        print_json(card)
    else:
        print(markdown)


def plan(options: Any) -> None:
    from extraction_assets.commands import plan_command

    plan, markdown = plan_command(Home.open(options.home), options.gpu)
    if options.json:
        print_json(plan)
    else:
        print(markdown)


def adopt(options: Any) -> None:
    from extraction_assets.commands import adopt_command

    adopted = adopt_command(Home.open(options.home), options.adapter, options.export, say)
    audit = adopted["manifest"]["audit"]
    modules = sum(count["modules"] for count in audit["trainable"].values())
    say(
        f"{adopted['adapter'][:12]}: {modules} linears, {audit['trainable_parameters']:,} parameters, trained by {adopted['manifest']['trainer']}"
    )
    say(f"It is the challenger now. Next: extraction --home {options.home} update")
    if options.json:
        print_json(adopted)


def lineage(options: Any) -> None:
    from extraction_assets.commands import lineage_command

    chain = lineage_command(Home.open(options.home), options.what)
    if options.json:
        print_json(chain.as_json())
    else:
        print(chain.text())


def check(options: Any) -> int | None:
    from extraction_assets.commands import check_command

    home = Home.open(options.home)
    check, stale = check_command(home, options.repair, say)
    if options.json:
        print_json({**check.as_json(), "repaired": options.repair, "stale": stale})
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
        return bad_input(f"{home.root / 'store'}: {len(check.findings)} things are damaged or missing. Run `check --repair`, then `update`")
    say(f"stale now: {', '.join(stale) or 'nothing'}. Run `extraction --home {home.root} update`")
    lost = [finding for finding in check.findings if not finding.can_be_made_again]
    return bad_input(f"{lost[0].path}: cannot be made again and was left; restore it from a backup ({len(lost)} such)") if lost else None


def ui(options: Any) -> None:
    """Replaces this process by `dagster dev`."""
    from extraction_assets.automation.instance import open_instance

    home = Home.open(options.home)
    home.settings()  # a broken settings.yaml is one clear line here and a traceback in the browser later
    open_instance(home).dispose()
    environment = {**os.environ, HOME_VARIABLE: str(home.root), "DAGSTER_HOME": str(home.dagster)}
    dagster = str(Path(sys.executable).with_name("dagster"))
    say(f"Dagster on {home.root}: http://127.0.0.1:{options.port}")
    os.execve(dagster, [dagster, "dev", "--workspace", str(PROJECT / "workspace.yaml"), "--port", str(options.port)], environment)


def demo(options: Any) -> int | None:
    from extraction_assets.demonstration import run_demo

    return run_demo(options.home if options.home != PROJECT / "data" else PROJECT / "demo_home", options.seed, options.keep, say)
