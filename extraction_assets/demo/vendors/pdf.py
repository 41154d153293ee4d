"""Sheets to the bytes of a PDF 1.7 file. The bytes depend on what is drawn alone: no clock, no random id, no library's mood.

Written by hand because a PDF library stamps times and ids into its files; classic objects and cross-reference table
(PDF 32000-1, 7.5). Embedded XML is attached the way Factur-X wants it: AFRelationship, name tree, XMP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from extraction_assets.demo.vendors.sheet import Sheet
from extraction_assets.demo.vendors.typefaces import stream_object
from extraction_assets.store import digest_bytes


@dataclass(frozen=True)
class Attachment:
    """A file inside the PDF."""

    name: str
    data: bytes
    xmp: bytes
    """metadata of the PDF that announces it"""


def write_pdf(sheets: Sequence[Sheet], title: str, author: str, day: date, attachment: Attachment | None = None) -> bytes:
    """The file's bytes. `day` stands in for the creation time."""
    objects = _Objects()
    catalogue, pages, info = objects.reserve(), objects.reserve(), objects.reserve()
    fonts = {key: objects.add_group(face.objects) for sheet in sheets for key, face in sorted(sheet.faces.items())}
    resources = objects.add("<</Font<<" + "".join(f"/{key} {number} 0 R" for key, number in sorted(fonts.items())) + ">>>>")
    kids = []
    for sheet in sheets:
        contents = objects.add(stream_object(sheet.content))
        kids.append(
            objects.add(
                f"<</Type/Page/Parent {pages} 0 R/MediaBox[0 0 {sheet.width:g} {sheet.height:g}]"
                f"/Resources {resources} 0 R/Contents {contents} 0 R>>"
            )
        )
    objects.set(pages, f"<</Type/Pages/Count {len(kids)}/Kids[{' '.join(f'{kid} 0 R' for kid in kids)}]>>")
    objects.set(
        info, f"<</Title{_text(title)}/Author{_text(author)}/CreationDate(D:{day:%Y%m%d}090000Z)/Producer(extraction_assets demo)>>"
    )
    extras = _attach(objects, attachment, day) if attachment else ""
    objects.set(catalogue, f"<</Type/Catalog/Pages {pages} 0 R{extras}>>")
    return objects.file(catalogue, info)


class _Objects:
    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._groups: dict[int, int] = {}

    def reserve(self) -> int:
        self._bodies.append(b"null")
        return len(self._bodies)

    def set(self, number: int, body: str | bytes) -> None:
        self._bodies[number - 1] = body.encode("ascii") if isinstance(body, str) else body

    def add(self, body: str | bytes) -> int:
        number = self.reserve()
        self.set(number, body)
        return number

    def add_group(self, bodies: tuple[bytes, ...]) -> int:
        """Objects that refer to each other as %0%, %1%, ...; the number of the first. The same group is stored once."""
        if id(bodies) not in self._groups:
            numbers = [self.reserve() for _ in bodies]
            for number, body in zip(numbers, bodies, strict=True):
                head, stream, data = body.partition(b"stream\n")
                head = re.sub(rb"%(\d)%", lambda match: str(numbers[int(match[1])]).encode(), head)
                self.set(number, head + stream + data)
            self._groups[id(bodies)] = numbers[0]
        return self._groups[id(bodies)]

    def file(self, root: int, info: int) -> bytes:
        out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        offsets = []
        for number, body in enumerate(self._bodies, 1):
            offsets.append(len(out))
            out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
        identity = digest_bytes(bytes(out))[:32]
        start = len(out)
        out += f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode()
        out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
        out += f"trailer\n<</Size {len(offsets) + 1}/Root {root} 0 R/Info {info} 0 R/ID[<{identity}><{identity}>]>>\n".encode()
        return bytes(out + f"startxref\n{start}\n%%EOF\n".encode())


def _attach(objects: _Objects, attachment: Attachment, day: date) -> str:
    """Objects of the embedded file; the catalogue's entries for it."""
    data = attachment.data
    file = objects.add(
        stream_object(data, f"/Type/EmbeddedFile/Subtype/text#2Fxml/Params<</Size {len(data)}/ModDate(D:{day:%Y%m%d}090000Z)>>")
    )
    name = _text(attachment.name)
    spec = objects.add(
        f"<</Type/Filespec/F{name}/UF{name}/AFRelationship/Alternative/Desc(Invoice data)/EF<</F {file} 0 R/UF {file} 0 R>>>>"
    )
    xmp = objects.add(f"<</Type/Metadata/Subtype/XML/Length {len(attachment.xmp)}>>stream\n".encode() + attachment.xmp + b"\nendstream")
    return f"/Metadata {xmp} 0 R/AF[{spec} 0 R]/Names<</EmbeddedFiles<</Names[{name} {spec} 0 R]>>>>"


def _text(text: str) -> str:
    """A PDF text string in UTF-16, as hexadecimal digits."""
    return f"<feff{text.encode('utf-16-be').hex()}>"
