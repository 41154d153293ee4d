"""Names of document types and vendors: folders below landing/ and keys of partitions."""

from __future__ import annotations

import unicodedata

from extraction_assets.errors import InputError

MAX_CHARACTERS = 100
MAX_BYTES = 200

_SLASHES = frozenset("/\\\u2044\u2215\u2216\u29f5\u29f8\u29f9\ufe68\uff0f\uff3c\u2571\u2572\u27cb\u27cd\u3033\u1735")
"""slashes, backslashes and what looks like one: "a/b" must be a type and a vendor and nothing else"""

_REFUSED = {"|": "separates partition keys", "*": "selects partitions", "...": "ranges over partitions"}


def check_vendor_name(name: str, where: str | None = None) -> str:
    """The name in Unicode NFC. Raises InputError on one that cannot be a folder and a partition key everywhere.

    Letters of any script, digits, spaces and ordinary punctuation are fine. where: what the error names (default: the name).
    """
    problem = _problem(name)
    if problem is not None:
        place = where or f"vendor {_shown(name)}"
        raise InputError(place, problem, "letters, digits, spaces and ordinary punctuation", "Rename the vendor's folder")
    return unicodedata.normalize("NFC", name)


def partition_key(type_name: str, vendor: str) -> str:
    """type/vendor, both checked and in NFC."""
    return f"{check_vendor_name(type_name, f'type {_shown(type_name)}')}/{check_vendor_name(vendor)}"


def split_key(key: str) -> tuple[str, str]:
    """Type and vendor of a partition key. Raises InputError."""
    type_name, slash, vendor = key.partition("/")
    if not slash:
        raise InputError(f"partition {_shown(key)}", "has no vendor", "type/vendor")
    check_vendor_name(type_name, f"type {_shown(type_name)}")
    return type_name, check_vendor_name(vendor)


def fold(name: str) -> str:
    """What two names must not share: they would be one folder on another system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _problem(name: str) -> str | None:
    if not name:
        return "the name is empty"
    odd = next((char for char in name if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")), None)
    if odd is not None:
        return f"the name holds the control or format character U+{ord(odd):04X}"
    normal = unicodedata.normalize("NFC", name)
    slash = next((char for char in name + normal if char in _SLASHES), None)
    if slash is not None:
        return f"the name holds {slash!r} (U+{ord(slash):04X}), a slash or what looks like one"
    for mark, why in _REFUSED.items():
        if mark in normal:
            return f"the name holds {mark!r}, which {why}"
    if normal != normal.strip():
        return "the name begins or ends with a space"
    if normal.startswith(".") or normal.endswith(".."):  # one dot at the end is "a.G.", "Inc.": common, and a folder everywhere we run
        return "the name begins with a dot or ends with two"
    if len(normal) > MAX_CHARACTERS or len(normal.encode()) > MAX_BYTES:
        return f"the name has {len(normal)} characters ({len(normal.encode())} bytes), more than {MAX_CHARACTERS} ({MAX_BYTES} bytes)"
    return None


def _shown(name: str) -> str:
    """A name in an error line: escapes for what cannot be printed, and not all of a long one."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in name[:60])
    return f"'{shown}{'...' if len(name) > 60 else ''}'"
