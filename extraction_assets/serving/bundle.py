"""A bundle: everything that an endpoint needs to answer, in one folder, and nothing that it could run.

    manifest.json      what it is made of, and the SHA-256 of every other file
    manifest.sha256    the SHA-256 of manifest.json
    base/              the checkpoint (weights as safetensors, tokenizer, page values); merged with the adapter where settings say so
    adapter/           the champion, where it is not merged
    schemas/           one target schema a document type
    golden/            page images, whose answers stand in the manifest

A bundle is written complete or not at all, and refused on load if a file is missing, altered or extra. No pickles, no code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from extraction_assets import __version__
from extraction_assets.errors import InputError
from extraction_assets.evaluation.calibration import Routing
from extraction_assets.inference.page_answer import PagePrompt
from extraction_assets.model.base import base_digest, base_folder, load_base
from extraction_assets.schema import SCHEMA_SUFFIX, TargetSchema
from extraction_assets.serving import BUNDLE_MANIFEST as MANIFEST
from extraction_assets.serving import BUNDLE_SEAL as SEAL
from extraction_assets.settings import DecodingSettings, RenderSettings, ServingSettings
from extraction_assets.store import canonical_json, digest_bytes, digest_file, write_atomically
from extraction_assets.training.adapter import verify_adapter

if TYPE_CHECKING:
    from extraction_assets.inference.answers import Answerer

BASE, ADAPTER, SCHEMAS, GOLDEN = "base", "adapter", "schemas", "golden"
_TAKEN = (".safetensors", ".json", ".jinja", ".txt", ".md")
"""what may stand in a base or an adapter; anything else (pickles, code) stays behind"""
_AGAIN = "Materialize serving_bundle again, or restore the folder"


@dataclass(frozen=True)
class GoldenQuestion:
    """A page whose answer a server has to give before it is ready."""

    type: str
    png: bytes
    width: int
    """px"""
    height: int


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GoldenPage(_Part):
    type: str
    page: str
    """SHA-256 of golden/<page>.png"""
    width: int
    height: int
    text: str
    """the answer"""


class Manifest(_Part):
    format: Literal[1] = 1
    package: str
    """version of extraction_assets that made it"""
    base: str
    """digest"""
    adapter: str | None
    """digest; None: the base answers alone"""
    weights: Literal["adapter", "merged"]
    schemas: dict[str, str]
    """document type -> digest of its schema"""
    render: RenderSettings
    """page budget of clients that render PDFs; the endpoint holds off-grid pictures to it"""
    decoding: DecodingSettings
    serving: ServingSettings
    routing: Routing | None
    """which pages may go without a person; None: nobody has calibrated"""
    golden: tuple[GoldenPage, ...]
    files: dict[str, str]
    """path in the bundle -> SHA-256"""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    folder: Path
    manifest: Manifest
    digest: str
    """SHA-256 of its manifest, which names every file by its own"""

    @cached_property
    def schemas(self) -> dict[str, TargetSchema]:
        return {name: TargetSchema.load(self.folder / SCHEMAS / f"{name}{SCHEMA_SUFFIX}") for name in self.manifest.schemas}

    def load(self) -> Answerer:
        """The model, ready to answer."""
        from extraction_assets.inference.answers import Answerer  # torch: whoever only checks or describes a bundle does without it

        adapter = self.folder / ADAPTER
        return Answerer.of(load_base(self.folder / BASE), adapter if adapter.is_dir() else None)

    def prompts(self) -> list[PagePrompt]:
        return [_prompt(page.page, page.type, self.folder / GOLDEN / f"{page.page}.png", page, self) for page in self.manifest.golden]


def write_bundle(
    folder: Path,
    base: str | Path,
    adapter: Path | None,
    adapter_digest: str | None,
    schemas: Mapping[str, TargetSchema],
    golden: Sequence[GoldenQuestion],
    render: RenderSettings,
    decoding: DecodingSettings,
    serving: ServingSettings,
    routing: Routing | None = None,
) -> Bundle:
    """Fill the empty `folder`. The golden answers are given here, by the weights that the bundle holds.

    base: folder or hub name; adapter: a folder made by training, whose digest is adapter_digest; routing: from the adapter's eval report.
    Raises InputError: the adapter is damaged or does not fit, the base has no safetensors, a file cannot be read.
    """
    if adapter is not None:
        verify_adapter(adapter)
    if adapter is not None and serving.weights == "merged":
        from extraction_assets.model.merging import merge_adapter

        merge_adapter(base, adapter, folder / BASE)
        for stray in [file for file in (folder / BASE).iterdir() if file.suffix not in _TAKEN]:
            stray.unlink()
    else:
        _copy(base_folder(base), folder / BASE)
        if adapter is not None:
            _copy(adapter, folder / ADAPTER)
    if not any(file.suffix == ".safetensors" for file in (folder / BASE).iterdir()):
        raise InputError(str(base), "holds no safetensors", "weights that are no pickles", "Convert the base to safetensors")
    for name, schema in schemas.items():
        write_atomically(folder / SCHEMAS / f"{name}{SCHEMA_SUFFIX}", json.dumps(schema.document, ensure_ascii=False, indent=1).encode())
    pages = []
    for question in golden:
        page = GoldenPage(type=question.type, page=digest_bytes(question.png), width=question.width, height=question.height, text="")
        write_atomically(folder / GOLDEN / f"{page.page}.png", question.png)
        pages.append(page)
    manifest = Manifest(
        package=__version__,
        base=base_digest(base),
        adapter=adapter_digest,
        weights=serving.weights,
        schemas={name: schema.digest for name, schema in sorted(schemas.items())},
        render=render,
        decoding=decoding,
        serving=serving,
        routing=routing,
        golden=tuple(pages),
        files=_digests(folder),
    )
    unanswered = Bundle(folder, manifest, "")
    answers = unanswered.load().answer(unanswered.prompts(), decoding) if pages else []
    answered = tuple(page.model_copy(update={"text": answer.text}) for page, answer in zip(pages, answers, strict=True))
    return _seal(folder, manifest.model_copy(update={"golden": answered}))


def open_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`, after every file was checked against the manifest.

    Raises InputError naming the first file that is missing, altered or extra.
    """
    path = folder / MANIFEST
    try:
        data, seal = path.read_bytes(), (folder / SEAL).read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise InputError(str(error.filename), "no such file, so this is no bundle", do="Name the folder of a serving_bundle") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(folder), f"cannot be read: {error}") from None
    if digest_bytes(data) != seal:
        raise InputError(str(path), f"is not what {SEAL} says", do=_AGAIN)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path} {'.'.join(map(str, first['loc']))}".rstrip(), first["msg"], "a bundle's manifest") from None
    found = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_symlink() or not file.is_dir()}
    for name in sorted({*manifest.files, *found} - {MANIFEST, SEAL}):
        if name not in found:
            raise InputError(str(folder / name), "is missing", do=_AGAIN)
        if name not in manifest.files:
            raise InputError(str(found[name]), "does not belong to the bundle", do=_AGAIN)
        if found[name].is_symlink() or digest_file(found[name]) != manifest.files[name]:
            raise InputError(str(found[name]), "is not the file that the bundle was made with", do=_AGAIN)
    return Bundle(folder, manifest, seal)


def _seal(folder: Path, manifest: Manifest) -> Bundle:
    data = canonical_json(manifest.model_dump(mode="json")).encode()
    write_atomically(folder / MANIFEST, data)
    write_atomically(folder / SEAL, digest_bytes(data).encode())
    return Bundle(folder, manifest, digest_bytes(data))


def _prompt(name: str, type_name: str, png: Path, page: GoldenPage, bundle: Bundle) -> PagePrompt:
    schema = bundle.schemas[type_name]
    return PagePrompt(f"golden {name[:12]}", schema.instruction, png, page.width, page.height, page.page, schema)


def _copy(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in sorted(source.iterdir()):
        if file.is_file() and file.suffix in _TAKEN and not file.name.startswith("."):
            shutil.copyfile(file, target / file.name)


def _digests(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): digest_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}
