"""Tesseract for pages without a text layer: by the real one where it is installed, and by a stand-in that says what the real one says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from extraction_assets.documents.rendering import render_bytes
from extraction_assets.inference import ocr
from extraction_assets.settings import RenderSettings
from extraction_assets.store import Store
from extraction_assets_tests.documents.samples import pdf

STAND_IN = """#!/bin/sh
echo "$OMP_THREAD_LIMIT $*" >> "{folder}/asked"
case "$1" in
  --version) echo "tesseract 9.9"; echo " leptonica-1" ;;
  --list-langs) printf 'List of available languages in "/x" (3):\\nosd\\neng\\ndeu\\n' ;;
  *) test ! -e "{folder}/broken" || exit 1
     printf 'level\\tpage_num\\tblock_num\\tpar_num\\tline_num\\tword_num\\tleft\\ttop\\twidth\\theight\\tconf\\ttext\\n'
     printf '4\\t1\\t1\\t1\\t1\\t0\\t0\\t0\\t99\\t9\\t-1\\t\\n'
     printf '5\\t1\\t1\\t1\\t1\\t1\\t10\\t20\\t30\\t8\\t96.1\\t"Total\\n'
     printf '5\\t1\\t1\\t1\\t1\\t2\\t50\\t20\\t30\\t8\\t91.0\\t9,50\\n'
     printf '5\\t1\\t2\\t1\\t1\\t1\\t10\\t40\\t30\\t8\\t90.0\\tThanks\\n' ;;
esac
"""


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    ocr.reader.cache_clear()
    yield
    ocr.reader.cache_clear()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "tesseract").write_text(STAND_IN.format(folder=folder))
    (folder / "tesseract").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def page_image(store: Store, *lines: str) -> str:
    page = render_bytes(pdf("\n".join(lines)), RenderSettings()).pages[0]
    return store.put_bytes(page.png, ".png")


def test_words_have_their_boxes_and_lines_and_a_page_is_read_once(stand_in: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = page_image(store, "Total 9,50")
    assert str(ocr.reader()) == "tesseract 9.9 (eng+deu)"
    found = dict(ocr.read_pages(store, [image, image]))
    assert [(word.text, word.box, word.line) for word in found[image].words] == [
        ('"Total', (10, 20, 40, 28), 0),
        ("9,50", (50, 20, 80, 28), 0),
        ("Thanks", (10, 40, 40, 48), 1),
    ]
    assert dict(ocr.read_pages(store, [image])) == found
    reading = [line for line in (stand_in / "asked").read_text().splitlines() if " tsv" in line]
    assert reading == [f"1 {store.path(image, '.png')} stdout -l eng+deu tsv"]


def test_a_page_that_could_not_be_read_has_no_words_and_is_tried_again(stand_in: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = page_image(store, "Total")
    (stand_in / "broken").touch()
    assert dict(ocr.read_pages(store, [image]))[image].words == ()
    (stand_in / "broken").unlink()
    assert len(dict(ocr.read_pages(store, [image]))[image].words) == 3


def test_without_tesseract_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    store = Store(tmp_path / "store")
    assert ocr.reader() is None
    assert list(ocr.read_pages(store, [page_image(store, "Total")])) == []


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="no tesseract on this machine (Debian: tesseract-ocr)")
def test_the_real_one_reads_a_page_where_its_words_stand(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    image = page_image(store, "Invoice 4711", "Grand total 1204.50")
    (words,) = (page.words for _, page in ocr.read_pages(store, [image]))
    assert [word.text for word in words] == ["Invoice", "4711", "Grand", "total", "1204.50"]
    assert [word.line for word in words] == [0, 0, 1, 1, 1]
    left, top, right, bottom = words[0].box
    assert left == pytest.approx(72 / 72 * 120, abs=6)
    assert 100 / 72 * 120 - 40 < top < bottom < 100 / 72 * 120 + 12
    assert left < right
