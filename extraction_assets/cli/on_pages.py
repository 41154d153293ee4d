"""Commands that answer, score, draw, merge or serve pages. As in on_home.py."""

from __future__ import annotations

import json
from typing import Any

from extraction_assets.cli.speech import bad_input, print_json, say, say_problems
from extraction_assets.errors import InputError
from extraction_assets.home import Home


def predict(options: Any) -> int | None:
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
        print_json(rows)
    else:
        for row in rows:
            answer = json.dumps(row["answer"], ensure_ascii=False) if row["answer"] is not None else f"no strict JSON: {row['text']!r}"
            print(f"{row['file']} page {row['page']}: {answer}")
    return say_problems(refused)


def _print_documents(documents: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(documents)
        return
    for document in documents:
        print(f"{document['file']}: {json.dumps(document['answer'], ensure_ascii=False)}")
        if document["unread_pages"]:
            print(f"  not complete: no strict JSON for page {', '.join(map(str, document['unread_pages']))}")
        for conflict in document["conflicts"]:
            values = ", ".join(f"{value['value']!r} on page {value['page']}" for value in conflict["values"])
            print(f"  {conflict['field']}: {values}; taken: {conflict['taken']!r}")


def evaluate(options: Any) -> None:
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
        print_json(report)
    else:
        print_table(report)


def render(options: Any) -> None:
    from extraction_assets.commands import render_command

    outcomes = render_command(options.home, options.files, options.out, options.dpi)
    if options.json:
        print_json(outcomes)
    else:
        for outcome in outcomes:
            reason = f": {outcome['reason']}" if outcome["reason"] else ""
            print(f"{outcome['file']}: {outcome['outcome']}, {len(outcome['pages'])} pages{reason}")


def merge(options: Any) -> None:
    from extraction_assets.commands import merge_command

    if options.pages < 0:
        raise InputError("--pages", f"found {options.pages}", "0 or more")
    merged, compared = merge_command(Home.open(options.home), options.adapter, options.out, options.pages, say)
    if options.json:
        print_json(merged)
    else:
        print(f"{merged['folder']}: base and adapter as one, {merged['weights']} weights changed")
        print(f"rounding to the base's type took {merged['rounding']:.1%} of the adapter at most (root mean square, worst weight)")
        print(f"{compared.equal} of {len(compared.pages)} test pages have the same answer as with the adapter beside the base")
        for page in compared.different:
            print(f"  {page.id}: {page.right[0]} of {page.fields} fields right with the adapter beside the base, {page.right[1]} merged")
        if compared.accuracy:
            print("fields right: {:.3f} with the adapter beside the base, {:.3f} merged".format(*compared.accuracy))


def serve(options: Any) -> None:
    from extraction_assets.commands import serve_command

    serve_command(options.home, options.bundle, options.host, options.port, say, options.page, options.vllm)


def deploy(options: Any) -> int | None:
    from extraction_assets.commands import deploy_command

    if options.target:
        return _roll_out(options)
    if options.dry_run:
        raise InputError("--dry-run", "goes with --target", do="--out deploys nothing anyway")
    written = deploy_command(Home.open(options.home), options.bundle, options.out)
    if options.json:
        print_json([str(path) for path in written])
    else:
        print("\n".join(map(str, written)))
        say("nothing was deployed: rollout.sh does that, with az, step by step")
    return None


def _roll_out(options: Any) -> int | None:
    from extraction_assets.commands import rollout_command

    plan, report = rollout_command(Home.open(options.home), options.bundle, options.target, options.dry_run, say)
    if options.json:
        print_json({**report.as_json(), "plan": plan.as_json()})
    else:
        print("\n".join(plan.lines()))
        for step in report.steps:
            print(", ".join(f"{key} {value}" for key, value in step.items()))
        print(f"{report.target}: {report.outcome}: {report.deployment} on {report.endpoint}")
    for line in report.left:
        say(f"left: {line}")
    return bad_input(f"{report.outcome}: {report.failed}") if report.failed else None
