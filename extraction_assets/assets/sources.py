"""Stage 1: what lies in landing/ — documents and their labels."""

import dagster as dg

from extraction_assets.assets.materialization import OWNERS, HomeResource, Materialization
from extraction_assets.assets.tables import markdown_table
from extraction_assets.assets.vendors import vendors_partitions
from extraction_assets.documents.intake import collect_documents, collect_labels
from extraction_assets.documents.landing import DigestCache
from extraction_assets.documents.records import Review, VendorDocuments
from extraction_assets.observation import Observation


@dg.asset(
    group_name="sources",
    partitions_def=vendors_partitions,
    description="The vendor's PDFs and scans as they lie in landing/, copied into the store under the digest of their bytes.",
    owners=OWNERS,
    kinds={"pdf"},
    code_version="1",
)
def raw_documents(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    seen = Observation.of(home.home())
    vendor = context.partition_key
    run = Materialization(context, home, observed=seen.version("raw_documents", vendor))
    cache = DigestCache(run.home.cache / "digests.json")
    found = collect_documents(run.home.landing, vendor, run.store, cache, progress=run.progress("file"))
    run.warn_left_out(found.refused)
    return run.finish(
        found.model_dump(mode="json"),
        {
            "documents": len(found.documents),
            "bytes": sum(document.bytes for document in found.documents),
            "refused": dg.MetadataValue.md(
                markdown_table(["file", "reason", "detail"], [(r.file, r.reason, r.detail) for r in found.refused])
            ),
        },
    )


@dg.asset(
    group_name="sources",
    partitions_def=vendors_partitions,
    deps=[raw_documents],
    description="The target JSON given for each document: the .json of the same stem, else the XML that an e-invoice carries.",
    owners=OWNERS,
    kinds={"json"},
    code_version="1",
)
def document_labels(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:
    seen = Observation.of(home.home())
    vendor = context.partition_key
    run = Materialization(context, home, observed=seen.version("document_labels", vendor))
    documents = VendorDocuments.model_validate(run.read("raw_documents"))
    cache = DigestCache(run.home.cache / "digests.json")
    found = collect_labels(run.home.landing, vendor, documents, run.store, cache, run.settings.render, run.settings.workers)
    unlabelled = len(documents.documents) - len(found.labels)
    reviewed = [(label.file, label.review) for label in found.labels if label.review is not None]
    return run.finish(
        found.model_dump(mode="json"),
        {
            "labels": len(found.labels),
            "from_e_invoice_xml": sum(label.origin == "e-invoice" for label in found.labels),
            "documents_without_label": unlabelled,
            "reviewed": len(reviewed),
            "reviews": dg.MetadataValue.md(
                markdown_table(["label", "origin", "by", "at", "replaced"], [(file, *_judged(review)) for file, review in reviewed])
            ),
        },
    )


def _judged(review: Review) -> tuple[str, str, str, str]:
    at = f"{review.at:%Y-%m-%d %H:%M}" if review.at else ""
    return review.origin, review.by or "", at, review.replaced.label[:12] if review.replaced else ""
