"""A target schema as a Label Studio labelling config, and label values as the texts of its controls, both ways.

Every header field is one control, named by its JSON pointer: a text area, or a choice where the schema lists the values. A list of
plain values has one text a value; an array of rows is one text area with one JSON object a line. An empty control is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from extraction_assets.documents.label_file import parse_label
from extraction_assets.errors import InputError
from extraction_assets.evaluation.rows import value_at
from extraction_assets.schema import Leaf, TargetSchema

IMAGE, BOXES = "page", "place"
"""names of the controls that are no field: a field's begins with a slash"""


def labelling_config(schema: TargetSchema) -> str:
    """The labelling config (XML) of one document type; the data keys are those of tasks.py."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Header", {"value": "$file"})
    ElementTree.SubElement(view, "Text", {"name": "why", "value": "$why"})
    ElementTree.SubElement(view, "Image", {"name": IMAGE, "valueList": "$pages", "zoomControl": "true"})
    boxes = ElementTree.SubElement(view, "RectangleLabels", {"name": BOXES, "toName": IMAGE})
    for pointer in _pointers(schema):
        ElementTree.SubElement(boxes, "Label", {"value": pointer})
    for leaf in schema.fields:
        pointer = pointer_of(leaf.path)
        ElementTree.SubElement(view, "Header", {"value": pointer, "size": "6"})
        choices = _choices(schema, leaf)
        if choices:
            control = ElementTree.SubElement(view, "Choices", {"name": pointer, "toName": IMAGE, "choice": "single-radio"})
            for choice in choices:
                ElementTree.SubElement(control, "Choice", {"value": choice})
        else:
            own = {} if _is_list(schema, leaf) else {"maxSubmissions": "1"}
            ElementTree.SubElement(view, "TextArea", {"name": pointer, "toName": IMAGE, "editable": "true", "rows": "1", **own})
    for array in schema.row_arrays:
        columns = ", ".join(column.name for column in array.columns)
        ElementTree.SubElement(view, "Header", {"value": f"{pointer_of(array.path)}: one row a line ({columns})", "size": "6"})
        rows = {"name": pointer_of(array.path), "toName": IMAGE, "editable": "true", "rows": "8", "maxSubmissions": "1"}
        ElementTree.SubElement(view, "TextArea", rows)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"


def pointer_of(path: Sequence[str]) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in path)


def control_of(pointer: str, schema: TargetSchema) -> str | None:
    """The control that holds the value at a JSON pointer into a target."""
    return next((name for name in _pointers(schema) if pointer == name or pointer.startswith(f"{name}/")), None)


def results(value: Mapping[str, Any], schema: TargetSchema) -> list[dict[str, Any]]:
    """A label's values as the `result` of a prediction; null values have none."""
    found = []
    for leaf in schema.fields:
        held = value_at(value, leaf.path)
        texts = [] if held is None else [_text(item) for item in (held if isinstance(held, list) else [held])]
        kind = "choices" if _choices(schema, leaf) else "textarea"
        if texts:
            found.append(_result(pointer_of(leaf.path), kind, texts))
    for array in schema.row_arrays:
        rows = value_at(value, array.path) or []
        if rows:
            found.append(_result(pointer_of(array.path), "textarea", ["\n".join(_text(row) for row in rows)]))
    return found


def label_of(texts: Mapping[str, Sequence[str]], schema: TargetSchema, before: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The label that the controls' texts spell, in target order.

    texts: control -> its texts. before: the label as it was handed out: where a field may be a text or a number, it keeps its kind.
    Raises InputError (where, control, what was found and expected).
    """
    value: dict[str, Any] = {}
    for leaf in schema.fields:
        pointer = pointer_of(leaf.path)
        given = [text.strip() for text in texts.get(pointer, ()) if text.strip()]
        if _is_list(schema, leaf):
            _put(value, leaf.path, [_parsed(text, leaf, None, f"{where} {pointer}") for text in given])
        elif len(given) > 1:
            raise InputError(f"{where} {pointer}", f"found {len(given)} texts", "one, or none where the field is absent")
        elif given:
            _put(value, leaf.path, _parsed(given[0], leaf, value_at(before, leaf.path), f"{where} {pointer}"))
    for array in schema.row_arrays:
        pointer = pointer_of(array.path)
        lines = [line for text in texts.get(pointer, ()) for line in text.split("\n") if line.strip()]
        _put(value, array.path, [parse_label(line.encode(), f"{where} {pointer} row {number}") for number, line in enumerate(lines, 1)])
    return value


def _pointers(schema: TargetSchema) -> list[str]:
    return [*(pointer_of(leaf.path) for leaf in schema.fields), *(pointer_of(array.path) for array in schema.row_arrays)]


def _result(name: str, kind: str, texts: list[str]) -> dict[str, Any]:
    key = "choices" if kind == "choices" else "text"
    return {"id": name, "from_name": name, "to_name": IMAGE, "type": kind, "value": {key: texts}}


def _node(schema: TargetSchema, leaf: Leaf) -> dict[str, Any]:
    node: dict[str, Any] = schema.document
    for key in leaf.path:
        node = node["properties"][key]
    return node


def _is_list(schema: TargetSchema, leaf: Leaf) -> bool:
    return "items" in _node(schema, leaf)


def _choices(schema: TargetSchema, leaf: Leaf) -> list[str]:
    node = _node(schema, leaf)
    if "enum" in node:
        return [_text(value) for value in node["enum"] if value is not None]
    return ["true", "false"] if set(leaf.json_types) <= {"boolean", "null"} and leaf.json_types else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _parsed(text: str, leaf: Leaf, before: Any, where: str) -> Any:
    """The JSON value that a text spells."""
    kinds = set(leaf.json_types) - {"null", "array"}
    if "string" in kinds and (kinds == {"string"} or isinstance(before, str) or before is None):
        return text
    if not kinds:  # an enum without a type, or a list: whatever the text spells as JSON, else the text
        try:
            return json.loads(text)
        except ValueError:
            return text
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if isinstance(value, bool) if kinds == {"boolean"} else isinstance(value, int | float):
        return value
    if "string" in kinds:
        return text
    raise InputError(where, f"found {text[:60]!r}", " or ".join(sorted(kinds)))


def _put(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = value
