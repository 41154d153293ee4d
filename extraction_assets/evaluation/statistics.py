"""Intervals and tests: the bootstrap over clusters, Wilson, exact McNemar, Holm. Knows numbers, not documents.

Every rate here is a ratio of sums over documents (hits / chances), so one bootstrap serves means, pooled F1 and per-field rates alike:
documents of one cluster are drawn together, fields and rows are never drawn on their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extraction_assets.store import digest_of

Z95 = 1.959963984540054
_CHUNK = 4_000_000
"""weights drawn at a time, so that memory stays bounded"""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A rate with its 95 % interval. n: documents it speaks of. Without any, or without resamples, there is no interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    def as_json(self) -> dict[str, float | int | None]:
        return {"value": _round(self.value), "low": _round(self.low), "high": _round(self.high), "n": self.n}


def wilson(hits: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of hits out of n (Wilson 1927), for 0 or n of n, where the bootstrap sees no variance."""
    if n == 0:
        return 0.0, 1.0
    share, square = hits / n, z * z
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_weights(clusters: int, resamples: int, seed: int, purpose: str) -> list[Matrix]:
    """How often each cluster is drawn: chunks of shape (resamples in chunk, clusters). The same for the same arguments."""
    generator = np.random.default_rng(int(digest_of(["bootstrap", seed, purpose, clusters])[:16], 16))
    step = max(1, _CHUNK // max(1, clusters))
    chunks = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(0, clusters, size=(count, clusters)) + (np.arange(count) * clusters)[:, None]
        chunks.append(np.bincount(drawn.ravel(), minlength=count * clusters).reshape(count, clusters).astype(np.float32))
    return chunks  # type: ignore[return-value]


def ratio_estimates(hits: Matrix, chances: Matrix, clusters: NDArray[np.int64], resamples: int, seed: int, purpose: str) -> list[Estimate]:
    """One estimate per metric of hits and chances, both (documents, metrics). clusters: (documents,), any integers.

    Percentile bootstrap over clusters; Wilson over documents where the value is 0 or 1.
    """
    values, counts = _ratios(hits.sum(0), chances.sum(0)), (chances > 0).sum(0)
    _, index = np.unique(clusters, return_inverse=True)
    n_clusters = int(index.max()) + 1 if len(index) else 0
    lows, highs = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if resamples and n_clusters > 1:
        grouped_hits, grouped_chances = _sum_by(hits, index, n_clusters), _sum_by(chances, index, n_clusters)
        drawn = np.concatenate(
            [_ratios(w @ grouped_hits, w @ grouped_chances) for w in bootstrap_weights(n_clusters, resamples, seed, purpose)]
        )
        known = ~np.isnan(drawn).all(0)
        if known.any():
            lows[known], highs[known] = np.nanpercentile(drawn[:, known], [2.5, 97.5], axis=0)
    estimates = []
    for value, low, high, n in zip(values, lows, highs, counts, strict=True):
        if np.isnan(value):
            estimates.append(Estimate(None, None, None, int(n)))
        elif resamples and value in (0.0, 1.0):
            estimates.append(Estimate(float(value), *wilson(float(value) * int(n), int(n)), int(n)))
        else:
            known_interval = not np.isnan(low)
            estimates.append(
                Estimate(float(value), float(low) if known_interval else None, float(high) if known_interval else None, int(n))
            )
    return estimates


@dataclass(frozen=True)
class Difference:
    """Rate of b minus rate of a on the same documents, with its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    """two-sided: how often resampling turns the sign, doubled"""
    n: int

    def as_json(self) -> dict[str, float | int | None]:
        return {"value": _round(self.value), "low": _round(self.low), "high": _round(self.high), "p": _round(self.p), "n": self.n}


def paired_difference(
    hits_a: Matrix,
    chances_a: Matrix,
    hits_b: Matrix,
    chances_b: Matrix,
    clusters: NDArray[np.int64],
    resamples: int,
    seed: int,
    purpose: str,
) -> Difference:
    """Paired bootstrap: both rates are computed on the same drawn clusters. All matrices are (documents,)."""
    rate_a, rate_b = _ratios(hits_a.sum(), chances_a.sum()), _ratios(hits_b.sum(), chances_b.sum())
    n = len(clusters)
    if np.isnan(rate_a) or np.isnan(rate_b):
        return Difference(None, None, None, None, n)
    value = float(rate_b - rate_a)
    _, index = np.unique(clusters, return_inverse=True)
    n_clusters = int(index.max()) + 1
    if not resamples or n_clusters < 2:
        return Difference(value, None, None, None, n)
    stacked = _sum_by(np.stack([hits_a, chances_a, hits_b, chances_b], axis=1), index, n_clusters)
    parts = [w @ stacked for w in bootstrap_weights(n_clusters, resamples, seed, purpose)]
    sums = np.concatenate(parts)
    drawn = _ratios(sums[:, 2], sums[:, 3]) - _ratios(sums[:, 0], sums[:, 1])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Difference(value, None, None, None, n)
    low, high = np.percentile(drawn, [2.5, 97.5])
    below, above = (drawn <= 0).mean(), (drawn >= 0).mean()
    return Difference(value, float(low), float(high), float(min(1.0, 2 * min(below, above))), n)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar: only_a documents were right in a alone, only_b in b alone. 1 where they never differ."""
    n, k = only_a + only_b, min(only_a, only_b)
    if n == 0:
        return 1.0
    term, total = 1, 1
    for i in range(k):  # sum of binomial coefficients, in whole numbers
        term = term * (n - i) // (i + 1)
        total += term
    return min(1.0, 2 * total / 2**n) if n < 1000 else min(1.0, math.exp(math.log(2 * total) - n * math.log(2)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979), in the order of the input."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def _ratios(hits: NDArray[np.floating], chances: NDArray[np.floating]) -> NDArray[np.float64]:
    hits, chances = np.asarray(hits, dtype=np.float64), np.asarray(chances, dtype=np.float64)
    return np.divide(hits, chances, out=np.full(np.shape(hits), np.nan), where=chances > 0)


def _sum_by(values: Matrix, index: NDArray[np.int64], groups: int) -> Matrix:
    out = np.zeros((groups, values.shape[1]))
    np.add.at(out, index, values)
    return out


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
