"""From token probabilities to a share of right values, and from there to the pages that need no person.

    unit         what a person would check: one header field, or the rows of one array together
    calibrated   logistic regression on the unit's raw probability and on what can be seen without a label: is it null, do the answer's
                 amounts add up (Platt 1999, with more than one feature). Fitted on val; judged on val with vendors apart, then on test
    page         confident as the product of its units
    auto         pages above a threshold, found on val: walking down from the surest page, as far as (wrong + 1) / (pages + 1) stays within
                 the target error (the correction of conformal risk control, Angelopoulos et al. 2022). The rest is for review

Routing stays off where the calibrated score is not better than a constant, or val has too few sure pages to vouch for the target.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from extraction_assets.evaluation.consistency import amount_roles, amounts_consistent
from extraction_assets.evaluation.rows import value_at
from extraction_assets.evaluation.scoring import RIGHT, DocumentScore
from extraction_assets.evaluation.statistics import bootstrap_weights, wilson
from extraction_assets.schema import TargetSchema

FEATURES = ("1", "logit", "absent", "sums_hold", "sums_fail", "rows")
BINS = 10
_FOLDS = 5
_FURTHEST = 12.0
"""logits are cut here: float32 knows no surer"""
_RIDGE = 1.0

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Unit:
    """One header field, or the rows of one array together."""

    name: str
    raw: float
    """probability of its tokens"""
    absent: bool
    """answered null, or without rows"""
    sums: bool | None
    """do the answer's amounts add up? None: nothing to add"""
    rows: bool


@dataclass(frozen=True)
class JudgedPage:
    """A page's units and whether each is right."""

    vendor: str
    document: str
    units: tuple[Unit, ...]
    right: tuple[bool, ...]


def units_of(answer: Mapping[str, Any], probabilities: Mapping[str, float], schema: TargetSchema) -> tuple[Unit, ...]:
    """answer: strict JSON of the schema; probabilities: JSON pointer of each value -> that of its tokens."""
    sums = amounts_consistent(answer, amount_roles(schema))
    units = []
    for leaf in schema.fields:
        pointer = _pointer(leaf.path)
        # a list of plain values is one field: all of its values, as rows are
        units.append(Unit(leaf.name, _product(probabilities, pointer), value_at(answer, leaf.path) is None, sums, False))
    for array in schema.row_arrays:
        units.append(Unit(array.name, _product(probabilities, _pointer(array.path)), not value_at(answer, array.path), sums, True))
    return tuple(units)


def judged_page(vendor: str, document: str, units: Sequence[Unit], score: DocumentScore) -> JudgedPage:
    """An answer that is no strict JSON has no units, and nothing on it is ever sure: leave such pages out, and count them."""
    right = [score.rows[unit.name].all_exact if unit.rows else score.fields[unit.name] in RIGHT for unit in units]
    return JudgedPage(vendor, document, tuple(units), tuple(right))


class Calibrator(BaseModel):
    """Coefficients of FEATURES."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    coefficients: tuple[float, ...]

    def of(self, units: Sequence[Unit]) -> Vector:
        """Probability that each unit is right."""
        from scipy.special import expit  # scipy takes more than a second to import, and every command loads this module

        return np.asarray(expit(_features(units) @ np.array(self.coefficients)))

    def page(self, units: Sequence[Unit]) -> float:
        """Probability that all of them are."""
        return float(np.prod(self.of(units)))


class Routing(BaseModel):
    """Whether pages may go without a person, and from which page confidence on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    on: bool
    reason: str
    target_error: float
    threshold: float | None
    """page confidence from which a page is auto; None where routing is off"""
    calibrator: Calibrator | None


def fit(pages: Sequence[JudgedPage]) -> Calibrator | None:
    """None where all units are right, or all wrong: nothing to learn."""
    units, right = _flat(pages)
    if not units or right.all() or not right.any():
        return None
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    features, signs = _features(units), np.where(right, 1.0, -1.0)
    penalty = np.array([0.0] + [_RIDGE] * (len(FEATURES) - 1))

    def loss(coefficients: Vector) -> tuple[float, Vector]:
        margins = signs * (features @ coefficients)
        slope = features.T @ (-signs * expit(-margins)) + penalty * coefficients
        return float(-log_expit(margins).sum() + 0.5 * (penalty * coefficients**2).sum()), slope

    found = minimize(loss, np.zeros(len(FEATURES)), jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8})
    return Calibrator(coefficients=tuple(round(float(value), 6) for value in found.x))


def route(val: Sequence[JudgedPage], target_error: float, resamples: int, seed: int) -> Routing:
    """Decide on val alone, each vendor judged by a calibrator that has not seen it."""
    calibrator = fit(val)
    if calibrator is None:
        return Routing(on=False, reason="val has no right values, or no wrong ones: nothing to calibrate on", target_error=target_error, threshold=None, calibrator=None)  # fmt: skip

    def off(reason: str) -> Routing:
        return Routing(on=False, reason=reason, target_error=target_error, threshold=None, calibrator=calibrator)

    apart = _vendors_apart(val)
    if apart is None:
        return off("val has one vendor or one document only: nothing can be judged apart")
    probabilities, constants = apart
    gain = _gain(val, probabilities, constants, resamples, seed)
    if gain <= 0:
        return off("the calibrated score does not beat a constant on val, vendors apart")
    sure = np.array([float(np.prod(of_page)) for of_page in probabilities])
    wrong = np.array([not all(page.right) for page in val])
    vouched = pages_within(sure, wrong, target_error)
    if not vouched:
        return off(f"val vouches for no page at a target error of {target_error:g}: it has too few sure pages that are right")
    # as many pages as the calibrators apart vouch for: their scales differ a little from that of the one fitted on all
    threshold = sorted((calibrator.page(page.units) for page in val), reverse=True)[vouched - 1]
    return Routing(on=True, reason="calibrated on val, vendors apart", target_error=target_error, threshold=math.floor(threshold * 1e6) / 1e6, calibrator=calibrator)  # fmt: skip


def pages_within(sure: Vector, wrong: NDArray[np.bool_], target_error: float) -> int:
    """How many of the surest pages (wrong + 1) / (pages + 1) stays within the target for; 0 where it never is."""
    order = np.argsort(-sure, kind="stable")
    errors, found = 0, 0
    for count, index in enumerate(order, 1):
        errors += int(wrong[index])
        if count < len(order) and sure[order[count]] == sure[index]:
            continue  # pages of one confidence stand or fall together
        if (errors + 1) / (count + 1) <= target_error:
            found = count
        elif found:
            break  # a fixed sequence: what comes behind a failure is not tried
    return found


def judge(test: Sequence[JudgedPage], routing: Routing, unread: int = 0) -> dict[str, Any]:
    """What the calibration is worth on pages that it has not seen. unread: further pages without strict JSON; they go to review.

    ECE (BINS bins of equal counts), Brier score and AUROC over units, raw and calibrated; a reliability curve; risk over coverage and the
    auto share with its measured error (Wilson's 95 % interval) over pages.
    """
    told: dict[str, Any] = {"pages": len(test) + unread, "routing": routing.model_dump(mode="json")}
    units, right = _flat(test)
    if not units:
        return told
    raw = np.array([unit.raw for unit in units])
    told["units"] = len(units)
    told["raw"] = scores(raw, right)
    if routing.calibrator is None:
        return told
    calibrated = routing.calibrator.of(units)
    told["calibrated"] = scores(calibrated, right)
    told["reliability"] = reliability(calibrated, right)
    sure = np.array([routing.calibrator.page(page.units) for page in test])
    wrong = np.array([not all(page.right) for page in test])
    errors = np.cumsum(wrong[np.argsort(-sure, kind="stable")])
    total = len(test) + unread
    places = sorted({max(1, round(len(test) * k / 50)) for k in range(1, 51)})
    told["risk_coverage"] = [{"coverage": round(n / total, 6), "error": round(float(errors[n - 1]) / n, 6)} for n in places]
    if routing.threshold is not None:
        auto = sure >= routing.threshold
        n, failed = int(auto.sum()), int(wrong[auto].sum())
        low, high = wilson(failed, n)
        told["auto"] = {
            "share": round(n / total, 6),
            "pages": n,
            "error": round(failed / n, 6) if n else None,
            "low": round(low, 6),
            "high": round(high, 6),
        }
    return told


def scores(probabilities: Vector, right: NDArray[np.bool_]) -> dict[str, float | None]:
    """{"ece", "brier", "auroc", "constant_brier"}; auroc is None where all are right or all wrong."""
    bins = reliability(probabilities, right)
    ece = sum(one["n"] * abs(one["confidence"] - one["right"]) for one in bins) / len(right)
    base = float(right.mean())
    positives, negatives = int(right.sum()), int((~right).sum())
    auroc = None
    if positives and negatives:  # Mann and Whitney's U
        from scipy.stats import rankdata

        auroc = (float(rankdata(probabilities)[right].sum()) - positives * (positives + 1) / 2) / (positives * negatives)
    return {
        "ece": round(float(ece), 6),
        "brier": round(float(np.mean((probabilities - right) ** 2)), 6),
        "auroc": None if auroc is None else round(auroc, 6),
        "constant_brier": round(base * (1 - base), 6),
    }


def reliability(probabilities: Vector, right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """[{"confidence", "right", "n"}]: means of up to BINS bins of equal counts, from the least to the most confident."""
    order = np.argsort(probabilities, kind="stable")
    return [
        {"confidence": round(float(probabilities[part].mean()), 6), "right": round(float(right[part].mean()), 6), "n": len(part)}
        for part in np.array_split(order, min(BINS, len(order)))
    ]


# --- the parts ------------------------------------------------------------------------------------------------------------


def _vendors_apart(pages: Sequence[JudgedPage]) -> tuple[list[Vector], list[float]] | None:
    """Per page: its units' probabilities, and the share of right units, both by folds that the page's vendor is not in.

    Documents take the vendors' place where there is but one vendor.
    """
    groups = [page.vendor for page in pages]
    if len(set(groups)) < 2:
        groups = [page.document for page in pages]
    names = sorted(set(groups))
    if len(names) < 2:
        return None
    fold_of = {name: number % min(_FOLDS, len(names)) for number, name in enumerate(names)}
    probabilities: list[Vector] = [np.zeros(0)] * len(pages)
    constants = [0.0] * len(pages)
    for fold in sorted(set(fold_of.values())):
        others = [page for page, group in zip(pages, groups, strict=True) if fold_of[group] != fold]
        calibrator, (_, right) = fit(others), _flat(others)
        share = float(right.mean()) if len(right) else 0.5
        for number, (page, group) in enumerate(zip(pages, groups, strict=True)):
            if fold_of[group] == fold:
                constants[number] = share
                probabilities[number] = calibrator.of(page.units) if calibrator else np.full(len(page.units), share)
    return probabilities, constants


def _gain(pages: Sequence[JudgedPage], probabilities: Sequence[Vector], constants: Sequence[float], resamples: int, seed: int) -> float:
    """Lower end of the 95 % interval of how much lower the Brier score is than a constant's; documents are resampled."""
    documents = sorted({page.document for page in pages})
    place = {document: number for number, document in enumerate(documents)}
    sums = np.zeros((len(documents), 2))
    for page, of_page, constant in zip(pages, probabilities, constants, strict=True):
        right = np.array(page.right, dtype=float)
        sums[place[page.document]] += ((constant - right) ** 2 - (of_page - right) ** 2).sum(), len(right)
    drawn = np.concatenate([weights @ sums for weights in bootstrap_weights(len(documents), max(resamples, 200), seed, "calibration")])
    means = drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    return float(np.percentile(means, 2.5))


def _features(units: Sequence[Unit]) -> Vector:
    return np.array(
        [[1.0, _logit(unit.raw), unit.absent, unit.sums is True, unit.sums is False, unit.rows] for unit in units], dtype=np.float64
    ).reshape(-1, len(FEATURES))


def _logit(probability: float) -> float:
    bounded = min(max(probability, 1e-12), 1 - 1e-12)
    return max(-_FURTHEST, min(_FURTHEST, math.log(bounded / (1 - bounded))))


def _flat(pages: Iterable[JudgedPage]) -> tuple[list[Unit], NDArray[np.bool_]]:
    pages = list(pages)
    return [unit for page in pages for unit in page.units], np.array([right for page in pages for right in page.right], dtype=bool)


def _pointer(path: Sequence[str]) -> str:
    return "".join(f"/{key.replace('~', '~0').replace('/', '~1')}" for key in path)


def _product(probabilities: Mapping[str, float], pointer: str) -> float:
    """Of the value at the pointer and of all below it."""
    return math.prod(value for name, value in probabilities.items() if name == pointer or name.startswith(f"{pointer}/"))
