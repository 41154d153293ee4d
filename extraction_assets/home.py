"""A home: one folder that holds settings.yaml, schemas/, landing/, store/, reports/ and dagster/."""

from __future__ import annotations

import functools
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from extraction_assets.errors import InputError
from extraction_assets.remote import RemoteFolder
from extraction_assets.schema import CHAT_RECORD_SCHEMA, SCHEMA_SUFFIX, TargetSchema
from extraction_assets.settings import Settings, SharedSettings
from extraction_assets.settings_file import load_settings
from extraction_assets.store import Store

PROJECT = Path(__file__).resolve().parent.parent
"""The checkout: its schemas/ and data/ are the defaults of every new home."""

HOME_VARIABLE = "EXTRACTION_HOME"


@dataclass(frozen=True)
class Home:
    root: Path

    @classmethod
    def open(cls, root: Path) -> Home:
        """InputError if `root` is no home."""
        home = cls(root.expanduser().resolve())
        if not home.settings_path.is_file():
            raise InputError(str(home.settings_path), "no such file, so this is no home", do=f"Make one with `extraction init {root}`")
        return home

    @classmethod
    def from_environment(cls) -> Home:
        return cls.open(Path(os.environ.get(HOME_VARIABLE, PROJECT / "data")))

    @classmethod
    def create(cls, root: Path) -> Home:
        """A new home with the commented default settings and the schemas. Files that are there stay as they are."""
        home = cls(root.expanduser().resolve())
        try:
            home.schemas_folder.mkdir(parents=True, exist_ok=True)
            home.landing.mkdir(exist_ok=True)
            _copy_if_absent(PROJECT / "data" / "settings.yaml", home.settings_path)
            for schema in sorted((PROJECT / "schemas").glob(f"*{SCHEMA_SUFFIX}")):
                if schema.name != CHAT_RECORD_SCHEMA + SCHEMA_SUFFIX:
                    _copy_if_absent(schema, home.schemas_folder / schema.name)
        except OSError as error:
            raise InputError(str(home.root), f"cannot be written: {error.strerror or error}", do="Choose another folder") from None
        return home

    @property
    def settings_path(self) -> Path:
        return self.root / "settings.yaml"

    @property
    def schemas_folder(self) -> Path:
        """The home's own schemas/; the project's data/ home uses the schemas/ beside it."""
        own = self.root / "schemas"
        return PROJECT / "schemas" if self.root == PROJECT / "data" and not own.is_dir() else own

    @property
    def landing(self) -> Path:
        return self.root / "landing"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def dagster(self) -> Path:
        return self.root / "dagster"

    @property
    def store(self) -> Store:
        """With the shared copy behind it that settings.yaml names."""
        address = _shared(self).store
        return Store(self.root / "store", RemoteFolder(address) if address else None)

    @property
    def shared_landing(self) -> RemoteFolder | None:
        """The landing that this home exchanges files with (documents.landing_mirror); None: its own is the only one."""
        address = _shared(self).landing
        return RemoteFolder(address) if address else None

    @property
    def cache(self) -> Path:
        """Things that only save time and may be deleted at any moment."""
        return self.root / "store" / "cache"

    def settings(self) -> Settings:
        return load_settings(self.settings_path)

    def types(self) -> list[str]:
        """Document types: one per target schema in schemas/."""
        names = (path.name.removesuffix(SCHEMA_SUFFIX) for path in self.schemas_folder.glob(f"*{SCHEMA_SUFFIX}"))
        return sorted(name for name in names if name != CHAT_RECORD_SCHEMA)

    def schema(self, type_name: str) -> TargetSchema:
        if type_name not in self.types():
            raise InputError(
                str(self.schemas_folder / f"{type_name}{SCHEMA_SUFFIX}"),
                f"no schema for document type {type_name!r}",
                f"one of {', '.join(self.types())}" if self.types() else None,
                "Add the schema or choose another type",
            )
        return TargetSchema.load(self.schemas_folder / f"{type_name}{SCHEMA_SUFFIX}")

    def base_model(self) -> str:
        """Folder of the base model (absolute) or its hub name.

        A relative folder is looked for in the home, then in the project's data/, where the embedded base lies.
        """
        name = self.settings().base_model
        for root in (self.root, PROJECT / "data"):
            if (root / name).is_dir():
                return str((root / name).resolve())
        return name


def chat_record_schema_path() -> Path:
    return PROJECT / "schemas" / f"{CHAT_RECORD_SCHEMA}{SCHEMA_SUFFIX}"


def _shared(home: Home) -> SharedSettings:
    """Read again where settings.yaml has changed only: the store is asked for often."""
    try:
        stat = home.settings_path.stat()
    except OSError:
        return SharedSettings()
    return _shared_at(home, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


@functools.lru_cache(maxsize=16)
def _shared_at(home: Home, _: tuple[int, int, int]) -> SharedSettings:
    return home.settings().shared


def _copy_if_absent(source: Path, target: Path) -> None:
    if not target.exists():
        shutil.copyfile(source, target)
