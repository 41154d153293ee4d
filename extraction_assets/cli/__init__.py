"""The command line. Every command exits 0 on success and 2 with one clear line on bad input.

With --json a command prints one JSON document on stdout; everything meant for people goes to stderr.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from extraction_assets.cli.arguments import parser_of_commands
from extraction_assets.cli.speech import bad_input
from extraction_assets.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that is no UTF-8 is no reason to stop
    options = parser_of_commands().parse_args(arguments)
    _quiet_libraries()
    try:
        return options.run(options) or 0
    except InputError as error:
        return bad_input(str(error))
    except BrokenPipeError:  # `extraction status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return bad_input("interrupted; run the same command again to go on")
    except Exception as error:
        line = _system_trouble(error)
        if line is None:
            traceback.print_exc()
            return 1
        return bad_input(line)


def _quiet_libraries() -> None:
    """Libraries' notes to their own developers are not for our users; training's process inherits this."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning,ignore::DeprecationWarning")
    for category in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", module="dagster")


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
