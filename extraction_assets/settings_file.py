"""settings.yaml -> Settings. Unknown keys, wrong types and impossible values are one-line InputErrors that name file, line and key."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError

from extraction_assets.errors import InputError
from extraction_assets.settings import Settings, lists_to_tuples


class _Yaml12Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1, where 1e-4 is text and 2024-13-45 a date that cannot be; everybody means the number and the text."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))


def load_settings(path: Path) -> Settings:
    """Parse and validate settings.yaml. Raises InputError naming file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(str(path), "no such file", do="Make a home with `extraction init DIR`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read as UTF-8 text: {error}") from error
    try:
        node = yaml.compose(text, Loader=_Yaml12Loader)
        values = yaml.load(text, Loader=_Yaml12Loader)
        _refuse_repeated_keys(path, node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(place, f"not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:  # also an alias of the very section that holds it
        raise InputError(str(path), "is nested too deeply", "sections of plain values") from None
    except (ValueError, AttributeError) as error:  # PyYAML on a number of thousands of digits, on !!int "x"
        raise InputError(str(path), f"holds a value that cannot be read: {error}", do="Correct it, or put it in quotes") from None
    if values is None:
        return Settings()
    if not isinstance(values, dict):
        raise InputError(str(path), f"holds a {type(values).__name__}", "sections such as render: and training:")
    values = {key: ({} if value is None and key in Settings.model_fields else value) for key, value in values.items()}
    try:
        return Settings.model_validate(lists_to_tuples(values))
    except ValidationError as error:
        raise _as_input_error(path, node, error) from None


def _refuse_repeated_keys(path: Path, node: yaml.Node | None) -> None:
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise InputError(f"{path}:{key.start_mark.line + 1} {key.value}", "stands here for the second time", do="Keep one")
        seen.add(key.value)
        _refuse_repeated_keys(path, value)


_IN_YAML_WORDS = {
    "model_type": "Input should be a section: indented keys with values",
    "tuple_type": "Input should be a list, such as [a, b]",
}
"""pydantic's error type -> what to say to someone who knows neither models nor tuples"""


def _as_input_error(path: Path, node: yaml.Node | None, error: ValidationError) -> InputError:
    first = error.errors()[0]
    keys = [str(part) for part in first["loc"]]
    line = _line_of(node, keys)
    where = f"{path}:{line} {'.'.join(keys)}" if line else f"{path} {'.'.join(keys)}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        close = difflib.get_close_matches(keys[-1], known, n=1)
        do = f"Did you mean {close[0]}?" if close else f"Known keys here: {', '.join(known)}"
        return InputError(where, "unknown key" + more, do=do)
    message = _IN_YAML_WORDS.get(first["type"], first["msg"].removeprefix("Value error, "))
    value = list(first["input"]) if isinstance(first["input"], tuple) else first["input"]
    found = "" if isinstance(value, dict) else f"found {value!r}: "
    return InputError(where, found + message + more)


def _known_keys(parents: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for parent in parents:
        model = type(getattr(model(), parent))
    return list(model.model_fields)


def _line_of(node: yaml.Node | None, keys: list[str]) -> int | None:
    """1-based line of the deepest key of this path that stands in the file."""
    line = None
    for wanted in keys:
        if isinstance(node, yaml.MappingNode):
            match = next(((key, value) for key, value in node.value if key.value == wanted), None)
            if match is None:
                return line
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and wanted.isdigit() and int(wanted) < len(node.value):
            node = node.value[int(wanted)]
            line = node.start_mark.line + 1
        else:
            return line
    return line
