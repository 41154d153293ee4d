"""Adapter folders as others meet them: reading the manifest, proving that the folder is whole."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from extraction_assets.errors import InputError
from extraction_assets.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from extraction_assets.training.manifest import MANIFEST, AdapterManifest, file_digests


def read_manifest(folder: Path) -> AdapterManifest:
    """Raises InputError if the folder is missing or holds no manifest of ours."""
    path = folder / MANIFEST
    try:
        return AdapterManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        found = "holds no manifest.json" if folder.is_dir() else "no such adapter"
        do = "Bring one that another trainer made in with `extraction adopt`" if folder.is_dir() else None
        raise InputError(str(folder), found, "an adapter folder made by training", do) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), f"cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{path} {'.'.join(map(str, first['loc']))}".rstrip(), first["msg"], "an adapter manifest") from None


def verify_adapter(folder: Path) -> AdapterManifest:
    """The manifest, after every file was checked against it. Raises InputError naming the first file that is missing, altered or extra."""
    manifest = read_manifest(folder)
    found = file_digests(folder)
    for name in (ADAPTER_WEIGHTS, ADAPTER_CONFIG, *sorted(set(manifest.files) | set(found))):
        if name not in found:
            raise InputError(str(folder / name), "is missing", do="Train again or restore the folder")
        if found[name] != manifest.files.get(name):
            what = "is not the file that training wrote" if name in manifest.files else "does not belong to the adapter"
            raise InputError(str(folder / name), what, do="Train again or restore the folder")
    return manifest
