"""`python -m extraction_assets.training.process JOB.json`: training.run as a process, which an interruption always ends without a traceback.

The libraries of a training take ten seconds to load. Until they have, an interruption ends the process at once, with nothing to save.
"""

from __future__ import annotations

import signal
import sys

from extraction_assets.model.loading import lasting_imports


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with lasting_imports():
        from extraction_assets.training import run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
