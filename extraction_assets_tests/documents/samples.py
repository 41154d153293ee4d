"""Real PDFs and scans, made with PyMuPDF and Pillow where a test needs them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pymupdf
from PIL import Image

from extraction_assets.documents.records import EXTENSIONS, Document, VendorDocuments
from extraction_assets.store import Store, digest_bytes


def pdf(*texts: str, width: float = 595, height: float = 842, rotation: int = 0, password: str | None = None) -> bytes:
    """A PDF of one page a text."""
    document = pymupdf.open()
    for text in texts:
        page = document.new_page(width=width, height=height)
        page.insert_text((72, 100), text, fontsize=20)
        page.set_rotation(rotation)
    if password is None:
        return document.tobytes(no_new_id=True)
    return document.tobytes(encryption=pymupdf.PDF_ENCRYPT_AES_256, user_pw=password, owner_pw=password + "!")


def raw_pdf(*objects: str, pages: str = "<< /Type /Pages /Kids [3 0 R] /Count 1 >>") -> bytes:
    """A PDF written by hand: object 1 is the catalog, 2 the page tree, 3 and on are given."""
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", pages, *objects]
    out = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    start = len(out)
    out += f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    return out + f"trailer << /Size {len(bodies) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()


def exponential_pdf(levels: int = 12, calls: int = 10) -> bytes:
    """A few kB that take 10^12 drawing steps: forms that call forms."""
    forms = []
    for level in range(levels):
        last = level == levels - 1
        body = "0 0 10 10 re f " if last else "/F Do " * calls
        resources = "" if last else f"/Resources << /XObject << /F {6 + level} 0 R >> >>"
        forms.append(f"<< /Type /XObject /Subtype /Form /BBox [0 0 600 800] {resources} /Length {len(body)} >>\nstream\n{body}\nendstream")
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /XObject << /F 5 0 R >> >> >>"
    return raw_pdf(page, "<< /Length 5 >>\nstream\n/F Do\nendstream", *forms)


def scan(kind: str = "PNG", size: tuple[int, int] = (600, 800), mode: str = "RGB", **save: object) -> bytes:
    """A picture with a black bar in its upper left, white elsewhere."""
    values = np.full((size[1], size[0]), 255, np.uint8)
    values[20:60, 20:220] = 0
    image = Image.fromarray(values).convert(mode)
    return encoded(image, kind, **save)


def encoded(image: Image.Image, kind: str = "PNG", **save: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **save)
    return out.getvalue()


def vendor_documents(store: Store, *files: bytes, type_name: str = "invoice", vendor: str = "acme") -> VendorDocuments:
    """The given files as a vendor's documents, in the store."""
    from extraction_assets.documents.media import sniff

    documents = {}
    for number, data in enumerate(files):
        media = sniff(data[:4096])
        assert media is not None
        digest = store.put_bytes(data, EXTENSIONS[media])
        documents[digest] = Document(document=digest, file=f"{type_name}/{vendor}/{number}", media=media, bytes=len(data))
    return VendorDocuments(type=type_name, vendor=vendor, documents=tuple(documents[digest] for digest in sorted(documents)))


def pixels(png: bytes) -> np.ndarray:
    """(height, width, 3) RGB of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def put(landing: Path, file: str, data: bytes | str) -> Path:
    path = landing / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


__all__ = ["digest_bytes", "encoded", "exponential_pdf", "pdf", "pixels", "put", "raw_pdf", "scan", "vendor_documents"]
