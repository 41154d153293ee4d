"""PDFs and scans: intake, the rendering sandbox, page text, labels from e-invoice XML."""

from __future__ import annotations

RENDERER = 3
"""Raised when a change of this package's own drawing code can change a page image, its words or its flags."""

EINVOICE_READER = 1
"""Raised when a change of einvoice.py can change a label."""

_ENGINES = ("pymupdf", "pypdfium2", "pillow", "numpy", "zlib-ng")


def engine_versions() -> dict[str, str]:
    """Name -> version of everything that decides the bytes of a page image and its words. Imports none of them."""
    from importlib.metadata import version

    return {"renderer": str(RENDERER), **{name: version(name) for name in _ENGINES}}


def einvoice_versions() -> dict[str, str]:
    """Name -> version of everything that decides a label taken from embedded XML."""
    from importlib.metadata import version

    return {"einvoice_reader": str(EINVOICE_READER), **{name: version(name) for name in ("pymupdf", "lxml")}}
