"""The whole asset graph as one picture: a change of edges, groups, partitions, checks or conditions is seen in review."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from extraction_assets.definitions import build_definitions
from extraction_assets.home import Home
from extraction_assets.record import Shape

SNAPSHOT = Path(__file__).parent / "graph_snapshot.json"
PROMISED = {
    "raw_documents", "document_labels", "page_images", "page_targets", "hard_negatives", "example_index", "train_split", "val_split",
    "test_split", "lora_adapter", "predictions", "eval_report", "champion_adapter",
}  # fmt: skip
"""names that outside checks use"""


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(Home.create(tmp_path_factory.mktemp("home")))


def picture(definitions: dg.Definitions) -> dict[str, Any]:
    graph = definitions.resolve_asset_graph()
    shape = Shape.of(graph)
    return {
        name: {
            "parents": list(parents),
            "partitioned": name in shape.partitioned,
            "group": graph.get(dg.AssetKey(name)).group_name,
            "runs_by_itself": (condition.get_label() or condition.name)
            if (condition := graph.get(dg.AssetKey(name)).automation_condition)
            else None,
            "blocking_checks": list(shape.blocking_checks.get(name, ())),
            "code_version": shape.code[name],
        }
        for name, parents in shape.parents.items()
    }


def test_the_graph_is_the_one_in_the_snapshot(definitions: dg.Definitions) -> None:
    """To accept a change: python -m extraction_assets_tests.test_graph"""
    assert picture(definitions) == json.loads(SNAPSHOT.read_text())


def test_the_promised_names_are_there(definitions: dg.Definitions) -> None:
    assert set(picture(definitions)) >= PROMISED


def test_every_asset_is_described_owned_and_grouped(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.group_name in {"settings", "sources", "pages", "dataset", "training", "evaluation", "serving"}, key


def test_only_the_index_stands_between_the_vendors_and_the_rest(definitions: dg.Definitions) -> None:
    shape = Shape.of(definitions.resolve_asset_graph())
    gathering = {
        name for name, parents in shape.parents.items() if name not in shape.partitioned and shape.partitioned.intersection(parents)
    }
    assert gathering == {"example_index"}


def test_the_definitions_load_as_the_daemon_loads_them(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        SNAPSHOT.write_text(json.dumps(picture(build_definitions(Home.create(Path(folder)))), indent=1) + "\n")
