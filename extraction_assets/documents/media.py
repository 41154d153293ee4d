"""What a file is, by its first bytes and never by its name."""

from __future__ import annotations

from extraction_assets.documents.records import MediaType

SNIFF_BYTES = 4096
"""how much of a file's beginning `sniff` looks at"""

_PDF_HEADER_WITHIN = 1024
"""Acrobat's rule (PDF 1.7 implementation note 13): %PDF- may stand anywhere in the first 1,024 bytes"""

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"PK\3\4", "a ZIP archive or an office document"),
    (b"\xd0\xcf\x11\xe0", "an old office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"%!PS", "PostScript"),
    (b"{\\rtf", "an RTF text"),
)


def sniff(head: bytes) -> MediaType | None:
    """Media type from a file's first SNIFF_BYTES bytes; None: not a document we take.

    A PDF with its header further in than 1,024 bytes, or with a header that lost its dash, still counts where it is no text
    in markup: the engines repair such files.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if looks_like_markup(head):
        return None
    if b"%PDF-" in head[:_PDF_HEADER_WITHIN] or b"%PDF" in head[:SNIFF_BYTES]:
        return "application/pdf"
    return None


def looks_like_markup(head: bytes) -> bool:
    """HTML or XML, which MuPDF would lay out as a document of its own whatever the file is called."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    return start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<svg"))


def describe(head: bytes) -> str:
    """What a refused file seems to be, for people."""
    if not head:
        return "empty (0 bytes)"
    if looks_like_markup(head):
        return "HTML or XML"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "a HEIC or AVIF image"
    for magic, name in _OTHERS:
        if head.startswith(magic):
            return name
    if b"\0" not in head and all(byte >= 32 or byte in b"\t\r\n\f" for byte in head[:512]):
        return "plain text"
    return "of an unknown kind"
