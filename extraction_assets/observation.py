"""What lies outside the graph now: settings, schemas, the landing folder, the base model. The roots of the graph mirror it.

The planner and the sensor compare an observation with the record; the root assets materialize it. Content counts: a touched
file, a comment or the order of keys changes no digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from extraction_assets.documents.landing import (
    DigestCache,
    LandedFile,
    LandingScan,
    documents_digest,
    labels_digest,
    scan_landing,
    scan_vendor,
)
from extraction_assets.documents.landing_mirror import exchange
from extraction_assets.errors import InputError
from extraction_assets.home import Home
from extraction_assets.schema import TargetSchema
from extraction_assets.settings import Settings
from extraction_assets.store import digest_of

SETTINGS_ROOTS: dict[str, str] = {
    "render_settings": "render",
    "target_settings": "targets",
    "negative_settings": "negatives",
    "split_settings": "splits",
    "training_settings": "training",
    "decoding_settings": "decoding",
    "evaluation_settings": "evaluation",
    "serving_settings": "serving",
    "deployment_settings": "deployment",
}
"""root asset -> section of settings.yaml"""

LANDING_ROOTS = ("raw_documents", "document_labels")
ROOTS = (*SETTINGS_ROOTS, "target_schema", *LANDING_ROOTS, "base_model")


def exchange_landing(home: Home, progress: Callable[[int, int], None] | None = None) -> None:
    """Bring landing/ and the shared landing together, where the settings name one. Raises InputError as landing_mirror.exchange does."""
    if (shared := home.shared_landing) is not None:
        exchange(home.landing, shared, home.cache / "landing.json", progress)


@dataclass(frozen=True)
class Observation:
    """One look at a home. Nothing is written but caches."""

    home: Home
    settings: Settings

    @classmethod
    def of(cls, home: Home) -> Observation:
        return cls(home, home.settings())

    @cached_property
    def landing(self) -> LandingScan:
        exchange_landing(self.home)
        return scan_landing(self.home.landing, self._digests)

    @property
    def vendors(self) -> list[str]:
        """Partition keys (type/vendor) of every vendor folder that holds a document and whose type has a schema."""
        types = set(self.home.types())
        return sorted(key for key in self.landing.vendors if key.split("/", 1)[0] in types)

    @property
    def problems(self) -> tuple[InputError, ...]:
        """What stands in landing/ and cannot be used, including types without a schema."""
        unknown = [
            InputError(
                str(self.home.landing / type_name),
                f"no schema for document type {type_name!r}",
                f"one of {', '.join(self.home.types())}" if self.home.types() else None,
                "Add the schema or move the folder",
            )
            for type_name in sorted({key.split("/", 1)[0] for key in self.landing.vendors} - set(self.home.types()))
        ]
        return (*self.landing.problems, *unknown)

    def files(self, vendor: str) -> tuple[LandedFile, ...]:
        """Files of one vendor; looks at that folder only."""
        if "landing" in self.__dict__:  # the whole landing folder has been read already
            return self.landing.vendors.get(vendor, ())
        return scan_vendor(self.home.landing, vendor, self._digests)

    def version(self, root: str, vendor: str | None = None) -> str:
        """Digest of what a root would see now."""
        if root == "raw_documents":
            return documents_digest(self.files(str(vendor)))
        if root == "document_labels":
            # without its password an encrypted e-invoice keeps its label to itself
            return digest_of([labels_digest(self.files(str(vendor))), list(self.settings.render.passwords)])
        if root == "base_model":
            return self._base_model_digest
        return digest_of(self.value(root, vendor))

    def value(self, root: str, vendor: str | None = None) -> Any:
        """The JSON value of a settings or schema root: what it materializes, and what a change is explained from."""
        if root in SETTINGS_ROOTS:
            return self._section(root)
        return self.schema(str(vendor)).document

    def schema(self, vendor: str) -> TargetSchema:
        return self._schemas(vendor.split("/", 1)[0])

    def _section(self, root: str) -> Mapping[str, Any]:
        return getattr(self.settings, SETTINGS_ROOTS[root]).model_dump(mode="json")

    def _schemas(self, type_name: str) -> TargetSchema:
        cache: dict[str, TargetSchema] = self.__dict__.setdefault("_schema_cache", {})
        if type_name not in cache:
            cache[type_name] = self.home.schema(type_name)
        return cache[type_name]

    @cached_property
    def _base_model_digest(self) -> str:
        from extraction_assets.model.base import base_digest  # brings torch along, which status and update --to splits can do without

        return base_digest(self.home.base_model())

    @cached_property
    def _digests(self) -> DigestCache:
        return DigestCache(self.home.cache / "digests.json")
