"""Typefaces of generated pages: the base-14 ones (named, not embedded) and embedded subsets of the `pymupdf-fonts` package.

A face measures text (pt), spells it as a PDF string and knows the PDF objects that declare it. All faces cover ALPHABET: what
Windows-1252 can spell, which is every letter of the demo's six languages.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache, cached_property

import pymupdf

ALPHABET = "".join(map(chr, range(32, 127))) + "".join(chr(c) for c in range(0xA1, 0x100) if c != 0xAD) + "€–—’‘“”„œŒ•"
"""Characters that a generated page may hold (the soft hyphen has no shape)"""

FAMILIES: dict[str, tuple[str, str]] = {
    "helvetica": ("helv", "hebo"),
    "times": ("tiro", "tibo"),
    "courier": ("cour", "cobo"),
    "noto": ("notos", "notosbo"),
    "fira": ("figo", "figbo"),
    "ubuntu": ("ubuntu", "ubuntubo"),
    "ubuntu-mono": ("ubuntm", "ubuntmbo"),
    "space-mono": ("spacemo", "spacembo"),
    "cascadia": ("cascadia", "cascadiab"),
}
"""Family -> (regular, bold) in PyMuPDF's short names"""

MONOSPACED = ("courier", "ubuntu-mono", "space-mono", "cascadia")
_BASE14 = {
    "helv": "Helvetica",
    "hebo": "Helvetica-Bold",
    "tiro": "Times-Roman",
    "tibo": "Times-Bold",
    "cour": "Courier",
    "cobo": "Courier-Bold",
}


@dataclass(frozen=True)
class Face:
    """One weight of a family."""

    key: str
    """PyMuPDF's short name: helv, notosbo, ..."""

    @cached_property
    def _font(self) -> pymupdf.Font:
        return pymupdf.Font(self.key)

    @cached_property
    def _advances(self) -> dict[str, float]:
        """Character -> advance in em."""
        return {char: self._font.glyph_advance(ord(char)) for char in ALPHABET}

    @cached_property
    def _glyphs(self) -> dict[str, int]:
        return {char: self._font.has_glyph(ord(char)) for char in ALPHABET}

    def width(self, text: str, size: float) -> float:
        """pt that `text` takes at `size` pt; KeyError on a character outside ALPHABET."""
        advances = self._advances
        return sum(advances[char] for char in text) * size

    def widest(self, text: str) -> str:
        """The same text with every digit replaced by this face's widest: in some faces a 1 is narrower than an 8."""
        digit = max("0123456789", key=lambda char: self._advances[char])
        return "".join(digit if char.isdigit() else char for char in text)

    def spell(self, text: str) -> str:
        """The text as a hexadecimal PDF string in this face's encoding."""
        if self.key in _BASE14:
            return f"<{text.encode('cp1252').hex()}>"
        return "<" + "".join(f"{self._glyphs[char]:04x}" for char in text) + ">"

    @cached_property
    def objects(self) -> tuple[bytes, ...]:
        """Bodies of the PDF objects that declare the face, the font itself first; `%N%` stands for the number of object N."""
        if self.key in _BASE14:
            return (f"<</Type/Font/Subtype/Type1/BaseFont/{_BASE14[self.key]}/Encoding/WinAnsiEncoding>>".encode(),)
        name = "DEMO" + "".join(chr(65 + ord(c) % 26) for c in self.key[:2]) + "+" + self._font.name.replace(" ", "")
        used = sorted((glyph, char) for char, glyph in self._glyphs.items())
        widths = " ".join(f"{glyph} [{self._advances[char] * 1000:.0f}]" for glyph, char in used)
        program = _subset(self.key)
        box = self._font.bbox
        box_text = " ".join(f"{value * 1000:.0f}" for value in (box.x0, box.y0, box.x1, box.y1))
        descriptor = (
            f"<</Type/FontDescriptor/FontName/{name}/Flags 32/FontBBox[{box_text}]/ItalicAngle 0/StemV 80"
            f"/Ascent {self._font.ascender * 1000:.0f}/Descent {self._font.descender * 1000:.0f}/CapHeight 700/FontFile2 %3% 0 R>>"
        )
        return (
            f"<</Type/Font/Subtype/Type0/BaseFont/{name}/Encoding/Identity-H/ToUnicode %4% 0 R/DescendantFonts[%1% 0 R]>>".encode(),
            f"<</Type/Font/Subtype/CIDFontType2/BaseFont/{name}/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>"
            f"/CIDToGIDMap/Identity/FontDescriptor %2% 0 R/W[{widths}]>>".encode(),
            descriptor.encode(),
            stream_object(program, f"/Length1 {len(program)}"),
            stream_object(_to_unicode(used)),
        )


@cache
def face(key: str) -> Face:
    """One Face a key and process: its subset is made once."""
    return Face(key)


def stream_object(data: bytes, entries: str = "") -> bytes:
    """Body of a deflated stream object."""
    packed = zlib.compress(data, 9)
    return f"<</Length {len(packed)}/Filter/FlateDecode{entries}>>stream\n".encode() + packed + b"\nendstream"


def _subset(key: str) -> bytes:
    """The font program with the glyphs of ALPHABET alone; glyph numbers stay. MuPDF keeps what a page uses, so a page uses all."""
    font = pymupdf.Font(key)
    with pymupdf.open() as document:
        page = document.new_page()
        page.insert_font(fontname="F", fontbuffer=font.buffer)
        glyphs = "".join(f"{font.has_glyph(ord(char)):04x}" for char in ALPHABET)
        contents = document.get_new_xref()
        document.update_object(contents, "<<>>")
        document.update_stream(contents, f"BT /F 9 Tf <{glyphs}> Tj ET".encode())
        document.xref_set_key(page.xref, "Contents", f"{contents} 0 R")
        document.subset_fonts()
        for xref in range(1, document.xref_length()):
            kind, value = document.xref_get_key(xref, "FontFile2")
            if kind == "xref":
                return document.xref_stream(int(value.split()[0]))
    raise AssertionError(f"{key} is not a TrueType font: choose another for FAMILIES")


def _to_unicode(used: list[tuple[int, str]]) -> bytes:
    """CMap from glyph numbers to characters, at most 100 a block (PDF 32000-1, 9.10.3). A shared glyph tells its first one."""
    first: dict[int, str] = {}
    for glyph, char in used:
        first.setdefault(glyph, char)
    pairs = [f"<{glyph:04x}> <{ord(char):04x}>" for glyph, char in first.items()]
    blocks = [pairs[start : start + 100] for start in range(0, len(pairs), 100)]
    body = "\n".join(f"{len(block)} beginbfchar\n" + "\n".join(block) + "\nendbfchar" for block in blocks)
    return (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        "/CIDSystemInfo <</Registry (Adobe) /Ordering (UCS) /Supplement 0>> def /CMapName /Adobe-Identity-UCS def /CMapType 2 def\n"
        f"1 begincodespacerange <0000> <ffff> endcodespacerange\n{body}\n"
        "endcmap CMapName currentdict /CMap defineresource pop end end"
    ).encode()
