"""How every benchmark prints: one table, or the JSON document that outside checks read."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Row:
    """One figure. peer: the same by something else, measured in the same call; None where there is nothing to compare with."""

    name: str
    ours: float
    unit: str
    better: Literal["higher", "lower"]
    peer: float | None = None
    peer_name: str | None = None

    @property
    def ratio(self) -> float | None:
        return round(self.ours / self.peer, 2) if self.peer else None


def print_rows(rows: Sequence[Row], packages: Sequence[str], as_json: bool) -> None:
    """packages: whose versions matter for these figures."""
    if as_json:
        versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
        listed = [{**asdict(row), "ratio": row.ratio} for row in rows]
        print(json.dumps({"machine": machine(), "date": datetime.date.today().isoformat(), "versions": versions, "rows": listed}))
        return
    print(f"{datetime.date.today().isoformat()}, {machine()}")
    width = max(len(row.name) for row in rows) + 2
    print(f"{'':{width}}{'ours':>12}{'peer':>12}{'ratio':>9}   unit")
    for row in rows:
        peer, ratio = ("" if value is None else f"{value:,.10g}" for value in (row.peer, row.ratio))
        print(
            f"{row.name:{width}}{row.ours:>12,.10g}{peer:>12}{ratio:>9}   {row.unit}{f'; peer: {row.peer_name}' if row.peer_name else ''}"
        )


def machine() -> str:
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
