"""The gate: does the challenger become the champion?

It must be better on the headline, by the margin asked for, than the champion and than the base model, on the same test set. And nothing
that costs money may become worse by more than the guard margin: every amount and id field (columns too), the strict-JSON rate, the worst
vendor. The first champion only has to beat the base model. A control run (training.shuffle_targets) never becomes champion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from extraction_assets.evaluation.compare import SystemScores, difference, refuse_unlike
from extraction_assets.evaluation.scoring import rounded
from extraction_assets.settings import EvaluationSettings

GUARDED_TYPES = ("amount", "id")
_EPSILON = 1e-9
"""so that 0.92 - 0.90 counts as 0.02"""


@dataclass(frozen=True)
class Decision:
    """What the gate decided, why in one line, and the numbers it looked at (JSON)."""

    promote: bool
    reason: str
    numbers: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {"promote": self.promote, "reason": self.reason, "numbers": self.numbers}


def decide(
    champion: SystemScores | None, challenger: SystemScores, base: SystemScores, settings: EvaluationSettings, control: bool = False
) -> Decision:
    """Decide on one test set. control: the challenger was taught shuffled targets.

    Raises InputError if the systems were not scored on the same documents under the same conditions.
    """
    numbers: dict[str, Any] = {"headline": settings.headline, "margin": settings.margin, "guard_margin": settings.guard_margin}
    objections = ["a control run, taught shuffled targets"] if control else []
    for rival in (base, champion):
        if rival is None:
            continue
        refuse_unlike(rival, challenger)
        told = _headline(rival, challenger, settings)
        numbers[rival.name] = told
        if not told["better"]:
            objections.append(_say_headline(rival.name, told, settings))
    if champion is not None:
        guards = _guards(champion, challenger, settings)
        numbers["guards"] = guards
        objections += [
            f"{guard['guard']} falls from {guard['champion']:.3f} to {guard['challenger']:.3f}, more than {settings.guard_margin:g}"
            for guard in guards
            if not guard["holds"]
        ]
    if objections:
        return Decision(False, "; ".join(objections), numbers)
    rival = champion or base
    told = numbers[rival.name]
    reason = f"{settings.headline} {told['to']:.3f} is better than the {rival.name}'s {told['from']:.3f}"
    more = f"no guard falls by more than {settings.guard_margin:g}" if champion else "the first champion"
    return Decision(True, f"{reason}; {more}", numbers)


def _headline(rival: SystemScores, challenger: SystemScores, settings: EvaluationSettings) -> dict[str, Any]:
    before, after = rival.value(settings.headline), challenger.value(settings.headline)
    known = before is not None and after is not None
    gain = after - before if before is not None and after is not None else 0.0
    return {
        "from": rounded(before),
        "to": rounded(after),
        "difference": difference(rival, challenger, settings.headline, settings).as_json(),
        "better": known and gain > _EPSILON and gain >= settings.margin - _EPSILON,
    }


def _say_headline(rival: str, told: dict[str, Any], settings: EvaluationSettings) -> str:
    if told["from"] is None or told["to"] is None:
        return f"{settings.headline} says nothing about this test set"
    asked = f" by {settings.margin:g}" if settings.margin else ""
    return f"{settings.headline} {told['to']:.3f} is not better{asked} than the {rival}'s {told['from']:.3f}"


def _guards(champion: SystemScores, challenger: SystemScores, settings: EvaluationSettings) -> list[dict[str, Any]]:
    """Every guard with both values and whether it holds; a guard that says nothing about the test set is left out."""
    found: list[tuple[str, float | None, float | None]] = [("strict_json", champion.value("strict_json"), challenger.value("strict_json"))]
    for type in sorted(champion.tables):
        before, after = champion.tables[type], challenger.tables[type]
        prefix = f"{type}: " if len(champion.tables) > 1 else ""
        for metric, name in _guarded_metrics(champion, type):
            found.append((prefix + name, before.value(metric), after.value(metric)))
    worst = [min(system.by_vendor(settings.headline).values(), default=None) for system in (champion, challenger)]
    found.append((f"worst vendor's {settings.headline}", worst[0], worst[1]))
    return [
        {
            "guard": name,
            "champion": rounded(old),
            "challenger": rounded(new),
            "holds": new >= old - settings.guard_margin - _EPSILON,
        }
        for name, old, new in found
        if old is not None and new is not None
    ]


def _guarded_metrics(system: SystemScores, type: str) -> list[tuple[str, str]]:
    schema = system.tables[type].schema
    fields = [(f"fields.{leaf.name}.accuracy", leaf.name) for leaf in schema.fields if leaf.type in GUARDED_TYPES]
    columns = [
        (f"rows.{rows.name}.columns.{column.name}", f"{rows.name}.{column.name}")
        for rows in schema.row_arrays
        for column in rows.columns
        if column.type in GUARDED_TYPES
    ]
    return fields + columns
