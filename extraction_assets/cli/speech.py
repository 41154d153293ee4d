"""How the command line speaks: to people on stderr, with --json one document on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from extraction_assets.errors import InputError

EXIT_BAD_INPUT = 2


def say(line: str) -> None:
    """To people: stderr."""
    print(line, file=sys.stderr, flush=True)


def bad_input(line: str) -> int:
    say(f"extraction: {line}")
    return EXIT_BAD_INPUT


def print_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # JSON's own escapes, where the terminal has no such character or the name is no UTF-8
        text = json.dumps(value, indent=1)
    print(text)


def say_problems(problems: Sequence[InputError]) -> int | None:
    for problem in problems:
        bad_input(str(problem))
    return EXIT_BAD_INPUT if problems else None
