"""`python -m extraction_assets.training.process JOB.json`: training.run as a process, which an interruption always ends without a traceback.

The libraries of a training take ten seconds to load. Until they have, an interruption ends the process at once, with nothing to save.
"""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType

from extraction_assets.model.loading import lasting_imports

_ONE_INTERRUPTION_S = 10.0
_interrupted_at: float | None = None


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with lasting_imports():
        from extraction_assets.training import run

    signal.signal(signal.SIGINT, _interrupt)
    return run.main(sys.argv[1:])


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C arrives twice, from the terminal and from the orchestrator that it reached too: the second must not disturb the ending."""
    global _interrupted_at
    now = time.monotonic()
    if _interrupted_at is None or now - _interrupted_at > _ONE_INTERRUPTION_S:
        _interrupted_at = now
        raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
