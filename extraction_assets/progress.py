"""Progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm

Progress = Callable[[int, int], None]
"""called with (done, total)"""


def terminal_bar(name: str, unit: str) -> Progress:
    """A bar that appears with the first call and leaves when all is done; silent where stderr is no terminal."""
    bar: tqdm | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(desc=name, unit=unit, file=sys.stderr, mininterval=0.3, leave=False, disable=None)
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return report
