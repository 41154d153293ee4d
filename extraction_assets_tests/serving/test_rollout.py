"""A rollout through the real SDK: every step on the double of Azure ML, every failure taken back, and never called what it is not."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("azure.ai.ml")

from extraction_assets.errors import InputError
from extraction_assets.serving.azure_costs import HOURS_A_MONTH, cost_sheet
from extraction_assets.serving.azure_double import AzureDouble, BundleServers, Fault, _Endpoint
from extraction_assets.serving.azure_service import AzureService, azure_service, double_service
from extraction_assets.serving.azure_specs import make_specs
from extraction_assets.serving.bundle import Bundle, open_bundle
from extraction_assets.serving.rollout import STANDING, Report, Rollout, make_plan, roll_out
from extraction_assets.settings import DeploymentSettings

IMAGE = f"registry.example.com/extraction-serve@sha256:{'a' * 64}"
SETTINGS = DeploymentSettings(image=IMAGE, auth="key")
NAME = SETTINGS.endpoint
BEFORE = {"traffic": {STANDING: 100}, "mirror": {}, "deployments": {STANDING: "Succeeded"}}
PUT_BODIES = Path(__file__).with_name("azure_put_bodies.json")


@pytest.fixture(scope="session")
def servers() -> Iterator[BundleServers]:
    servers = BundleServers()
    yield servers
    servers.close()


@pytest.fixture
def double(bundle: Bundle, servers: BundleServers) -> Iterator[AzureDouble]:
    with AzureDouble(servers, {(f"{NAME}-bundle", bundle.digest[:12]): bundle.folder}) as double:
        yield double


@pytest.fixture
def service(double: AzureDouble) -> Iterator[AzureService]:
    with double_service(double) as service:
        yield service


@pytest.fixture
def standing(double: AzureDouble, bundle: Bundle) -> None:
    double.seed(make_specs(bundle, SETTINGS), STANDING)


def new(bundle: Bundle) -> str:
    return f"bundle-{bundle.digest[:12]}"


def run(service: AzureService, bundle: Bundle, settings: DeploymentSettings = SETTINGS) -> Report:
    return roll_out(service, bundle, settings, False, lambda _: None)[1]


def never(_: object) -> None:
    raise AssertionError("a rehearsal does not wait")


# --- what goes well ----------------------------------------------------------------------------------------------------------


def test_a_first_rollout_takes_all_traffic_once_its_answers_agree(double: AzureDouble, service: AzureService, bundle: Bundle) -> None:
    report = run(service, bundle)
    assert (report.outcome, report.failed, report.left) == ("rehearsed", None, [])
    assert [step["step"] for step in report.steps] == ["create endpoint", "create deployment at 0 %", "smoke", "100 %"]
    assert report.steps[2]["golden_pages"] == len(bundle.manifest.golden)
    assert report.steps[2]["agreement"] == 1.0
    assert double.state(NAME) == {"traffic": {new(bundle): 100}, "mirror": {}, "deployments": {new(bundle): "Succeeded"}}


def test_a_replacement_is_mirrored_then_10_percent_then_all_then_the_old_one_goes(
    double: AzureDouble, service: AzureService, bundle: Bundle, standing: None
) -> None:
    plan = make_plan(service, bundle, SETTINGS)
    report = Rollout(service, bundle, SETTINGS, plan, lambda _: None, never).run()
    assert (report.outcome, report.traffic) == ("rehearsed", {new(bundle): 100})
    moves = [asked.body["properties"] for asked in double.asked if asked.method == "PUT" and asked.path == f"onlineEndpoints/{NAME}"]
    assert [(move["traffic"], move["mirrorTraffic"]) for move in moves] == [
        ({STANDING: 100}, {new(bundle): SETTINGS.mirror}),
        ({STANDING: 90, new(bundle): 10}, {}),
        ({new(bundle): 100}, {}),
    ]
    assert double.state(NAME) == {"traffic": {new(bundle): 100}, "mirror": {}, "deployments": {new(bundle): "Succeeded"}}
    pages = len(bundle.manifest.golden)
    # smoke, mirror and 10 % by header, 100 % by traffic; the standing one answered what came by traffic before
    assert sum(double.scored.values()) == 6 * pages
    assert double.scored[new(bundle)] >= 4 * pages
    assert double.scored[STANDING] >= pages
    again = run(service, bundle)
    assert (again.outcome, [step["step"] for step in again.steps]) == ("unchanged", ["smoke"])


def test_what_is_sent_to_azure_is_what_stands_in_the_golden_bodies(double: AzureDouble, service: AzureService, bundle: Bundle) -> None:
    run(service, bundle)
    sent = {}
    for asked in double.asked:
        if asked.method == "PUT" and asked.path not in sent:
            text = json.dumps([asked.path, asked.body]).replace(bundle.digest[:12], "DIGEST")
            path, body = json.loads(re.sub(r"(CliV2AnonymousEnvironment/versions/)[0-9a-f]+", r"\1HASH", text))
            sent.setdefault(path, body)
    if os.environ.get("EXTRACTION_WRITE_GOLDEN"):
        PUT_BODIES.write_text(json.dumps(sent, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert sent == json.loads(PUT_BODIES.read_text(encoding="utf-8"))


def test_a_dry_run_changes_nothing_and_shows_plan_difference_and_costs(
    double: AzureDouble, service: AzureService, bundle: Bundle, standing: None
) -> None:
    plan, report = roll_out(service, bundle, SETTINGS, True, lambda _: None)
    assert report.outcome == "planned"
    assert plan.steps == ("create deployment at 0 %", "smoke", "mirror", "10 %", "100 %", "delete old deployment")
    assert f"--- {STANDING}" in plan.diff
    assert f"+environment: {IMAGE}" in plan.diff
    assert {asked.method for asked in double.asked} == {"GET"}
    assert double.state(NAME) == BEFORE


# --- what fails is taken back ------------------------------------------------------------------------------------------------

ENDPOINT, NEW, KEYS = f"onlineEndpoints/{NAME}", "deployments/bundle-[0-9a-f]+", "listKeys"
FAILURES = [
    ("create deployment at 0 %", Fault("PUT", NEW, "OutOfQuota", "Not enough quota for the SKU.", 400)),
    ("create deployment at 0 %", Fault("PUT", NEW, "OutOfQuota", "Not enough quota for the SKU.", 0)),
    ("create deployment at 0 %", Fault("PUT", "environments/.*", "Forbidden", "No right to write.", 403)),
    ("smoke", Fault("POST", KEYS, "Forbidden", "No right to list keys.", 403)),
    ("mirror", Fault("PUT", ENDPOINT, "Conflict", "Another operation.", times=1)),
    ("mirror", Fault("PUT", ENDPOINT, "InternalServerError", "Try again.", 0, times=1)),
    ("mirror", Fault("POST", KEYS, "Forbidden", "No right.", 403, nth=2)),
    ("10 %", Fault("PUT", ENDPOINT, "Conflict", "Another operation.", nth=2, times=1)),
    ("10 %", Fault("PUT", ENDPOINT, "InternalServerError", "Try again.", 0, nth=2, times=1)),
    ("10 %", Fault("POST", KEYS, "Forbidden", "No right.", 403, nth=4)),
    ("100 %", Fault("PUT", ENDPOINT, "Conflict", "Another operation.", nth=3, times=1)),
    ("100 %", Fault("PUT", ENDPOINT, "InternalServerError", "Try again.", 0, nth=3, times=1)),
    ("100 %", Fault("POST", KEYS, "Forbidden", "No right.", 403, nth=6)),
]


@pytest.mark.parametrize(("step", "fault"), FAILURES, ids=lambda value: value if isinstance(value, str) else f"{value.path}-{value.code}")
def test_a_failure_at_any_step_leaves_traffic_mirror_and_deployments_as_they_were(
    double: AzureDouble, service: AzureService, bundle: Bundle, standing: None, step: str, fault: Fault
) -> None:
    double.faults = [fault]
    report = run(service, bundle)
    assert report.outcome == "rolled back"
    assert report.failed is not None
    assert report.failed.startswith(f"{step}: ")
    assert fault.code in report.failed
    assert fault.message in report.failed
    assert (report.left, report.traffic) == ([], BEFORE["traffic"])
    assert double.state(NAME) == BEFORE


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PUT", ENDPOINT, "Forbidden", "No right.", 403),
        Fault("PUT", ENDPOINT, "BadArgument", "No.", 0, times=1),
        Fault("PUT", NEW, "OutOfQuota", "No quota.", 0),
        Fault("POST", KEYS, "Forbidden", "No right.", 403),
        Fault("POST", KEYS, "Forbidden", "No right.", 403, nth=2),
    ],
)
def test_a_failed_first_rollout_leaves_no_endpoint(double: AzureDouble, service: AzureService, bundle: Bundle, fault: Fault) -> None:
    double.faults = [fault]
    report = run(service, bundle)
    assert (report.outcome, report.left, double.state(NAME)) == ("rolled back", [], None)


def test_answers_that_differ_from_this_machines_fail_the_smoke_test(
    double: AzureDouble, service: AzureService, bundle: Bundle, standing: None
) -> None:
    other = tuple(page.model_copy(update={"text": '{"number":"never","date":null,"total":"1"}'}) for page in bundle.manifest.golden)
    expecting = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"golden": other}))
    report = run(service, expecting)
    assert report.failed is not None
    assert re.match(r"smoke: .*golden values are answered as on this machine", report.failed)
    assert double.state(NAME) == BEFORE
    assert STANDING not in double.scored


def test_an_interrupt_is_rolled_back_too(double: AzureDouble, service: AzureService, bundle: Bundle, standing: None) -> None:
    def interrupt(line: str) -> None:
        if line.endswith("100 %"):
            assert double.state(NAME)["traffic"] == {STANDING: 90, new(bundle): 10}
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        roll_out(service, bundle, SETTINGS, False, interrupt)
    assert double.state(NAME) == BEFORE


def test_an_old_deployment_that_cannot_be_deleted_is_told_and_the_new_one_serves_on(
    double: AzureDouble, service: AzureService, bundle: Bundle, standing: None
) -> None:
    double.faults = [Fault("DELETE", f"deployments/{STANDING}", "Conflict", "Locked.")]
    report = run(service, bundle)
    assert (report.outcome, report.traffic) == ("rehearsed", {new(bundle): 100})
    assert report.failed is not None
    assert report.left == [f"deployment {STANDING}: not deleted, and still paid for"]


def test_what_cannot_be_taken_back_is_told(double: AzureDouble, service: AzureService, bundle: Bundle, standing: None) -> None:
    double.faults = [Fault("PUT", ENDPOINT, "Conflict", "Locked.", nth=3)]
    report = run(service, bundle)
    assert (report.outcome, report.traffic) == ("rolled back", {STANDING: 90, new(bundle): 10})
    assert [line.partition(": ")[0] for line in report.left] == [f"traffic {{'{STANDING}'", f"deployment {new(bundle)}"]


@pytest.mark.slow
def test_a_container_that_never_becomes_ready_is_a_failed_deployment(bundle: Bundle, servers: BundleServers, tmp_path: Path) -> None:
    from extraction_assets.serving.bundle import _seal

    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    golden = tuple(page.model_copy(update={"text": '{"number":"never"}'}) for page in bundle.manifest.golden)
    broken = _seal(copy, open_bundle(copy).manifest.model_copy(update={"golden": golden}))
    with AzureDouble(servers, {(f"{NAME}-bundle", broken.digest[:12]): copy}) as double, double_service(double) as service:
        report = run(service, broken)
        assert report.failed is not None
        assert "ResourceNotReady" in report.failed
        assert double.state(NAME) is None


# --- what is refused before anything changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "settings", "told"),
    [
        (lambda double: double._endpoints[NAME].body["properties"].update(traffic={STANDING: 90, "x": 10}), SETTINGS, "middle of a rollout"),
        (lambda double: double._endpoints[NAME].body["properties"].update(mirrorTraffic={"x": 10}), SETTINGS, "middle of a rollout"),
        (lambda double: None, DeploymentSettings(image=IMAGE, auth="aml_token"), "cannot be changed later"),
        (lambda double: None, DeploymentSettings(image=None, auth="key"), r"environment\.image"),
        (lambda double: double.faults.append(Fault("GET", "", "Forbidden", "No right.", 403)), SETTINGS, "Azure says Forbidden"),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_work_is_refused_and_nothing_is_changed(
    double: AzureDouble,
    service: AzureService,
    bundle: Bundle,
    standing: None,
    spoil: Callable[[AzureDouble], None],
    settings: Any,
    told: str,
) -> None:
    spoil(double)
    with pytest.raises(InputError, match=told):
        roll_out(service, bundle, settings, False, lambda _: None)
    assert all(asked.method == "GET" for asked in double.asked)


def test_a_model_version_that_holds_another_bundle_is_not_served(service: AzureService, bundle: Bundle) -> None:
    other = dataclasses.replace(bundle, digest=bundle.digest[:12] + "0" * 52)
    with pytest.raises(InputError, match="holds the bundle"):
        make_plan(service, other, SETTINGS)


def test_a_bundle_that_is_not_in_the_workspace_is_uploaded_first_which_the_double_refuses(servers: BundleServers, bundle: Bundle) -> None:
    with AzureDouble(servers, {}) as double, double_service(double) as service:
        assert "upload bundle" in make_plan(service, bundle, SETTINGS).steps
        report = run(service, bundle)
        assert report.failed is not None
        assert re.match("upload bundle: .*Azure says ResourceNotFound", report.failed)
        assert double.state(NAME) is None


def test_without_a_workspace_azure_is_not_asked() -> None:
    with pytest.raises(InputError, match=r"subscription, resource_group, workspace is not set"):
        azure_service(SETTINGS)


# --- the double keeps the service's rules --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traffic", "mirror", "told"),
    [
        ({STANDING: 60}, {}, "not to 0 or 100"),
        ({STANDING: 60, "ghost": 40}, {}, "ghost, which is not there"),
        ({STANDING: 100}, {STANDING: 10}, "live traffic takes no mirrored"),
        ({}, {STANDING: 60}, "50 % at most"),
    ],
)
def test_the_double_refuses_traffic_that_azure_refuses(
    double: AzureDouble, service: AzureService, standing: None, traffic: dict[str, int], mirror: dict[str, int], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        service.set_traffic(NAME, traffic, mirror)
    assert double.state(NAME) == BEFORE


def test_the_double_deletes_nothing_under_traffic(double: AzureDouble, service: AzureService, standing: None) -> None:
    with pytest.raises(InputError, match="set it to 0 first"):
        service.delete_deployment(NAME, STANDING)
    assert double.state(NAME) == BEFORE


def test_a_stranger_gets_nothing_from_the_double(double: AzureDouble) -> None:
    import ssl
    import urllib.error
    import urllib.request

    trusted = ssl.create_default_context(cafile=double.certificate)
    for path in ("/subscriptions/x?api-version=2024-01-01", f"/endpoints/{NAME}/score"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{double.url}{path}", context=trusted)


def test_a_hundred_requests_are_shared_out_as_the_traffic_says() -> None:
    endpoint = _Endpoint({"properties": {"traffic": {"old": 90, "new": 10}, "mirrorTraffic": {}}})
    assert Counter(AzureDouble._next(endpoint) for _ in range(100)) == {"old": 90, "new": 10}


# --- command line, costs, and the real service -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_rehearses_and_says_so_everywhere(bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from extraction_assets.cli import main

    home = tmp_path / "home"
    assert main(["init", str(home)]) == 0
    settings = home / "settings.yaml"
    settings.write_text(settings.read_text().replace("image: null", f"image: {IMAGE}"))
    capsys.readouterr()
    arguments = ["--home", str(home), "deploy", "--target", "fake", "--bundle", str(bundle.folder)]
    assert main([*arguments, "--json"]) == 0
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert (document["outcome"], document["target"]) == ("rehearsed", "fake")
    assert document["plan"]["old"] == STANDING
    assert "deployed" not in told.out + told.err
    assert main([*arguments, "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "fake: planned" in told.out
    assert "deployed" not in told.out + told.err
    assert main(["--home", str(home), "deploy", "--target", "azure", "--bundle", str(bundle.folder)]) == 2
    assert "subscription" in capsys.readouterr().err
    assert main(["--home", str(home), "deploy", "--out", str(tmp_path / "o"), "--dry-run"]) == 2
    assert "AZUREML_CURRENT_CLOUD" not in os.environ


def test_costs_are_the_users_prices_and_none_is_invented() -> None:
    sku = "Standard_NV36ads_A10_v5"
    priced = SETTINGS.model_copy(
        update={"price_per_hour": {sku: 2.5}, "price_date": "2026-11-01", "price_source": "our contract", "instances": 3}
    )
    rows = {row.sku: row for row in cost_sheet(priced, 17 * 2**30, 16).skus}
    assert (rows[sku].per_month, rows[sku].rollout_per_hour) == (2.5 * 3 * HOURS_A_MONTH, 15.0)
    assert (rows[sku].fits, rows[sku].requests_at_once) == (True, 96)
    assert not rows["Standard_NC16as_T4_v3"].fits
    assert all(row.per_month is None for name, row in rows.items() if name != sku)
    assert "our contract" in cost_sheet(priced, 1, 1).lines()[0]
    assert "no prices" in cost_sheet(SETTINGS, 1, 1).lines()[0]
    with pytest.raises(ValueError, match="rumour"):
        DeploymentSettings(price_per_hour={sku: 2.5})


@pytest.fixture(params=["fake", "azure"])
def any_service(request: pytest.FixtureRequest) -> AzureService:
    """The double, and a real workspace where EXTRACTION_AZURE_WORKSPACE=SUBSCRIPTION/GROUP/WORKSPACE names one."""
    if request.param == "fake":
        return request.getfixturevalue("service")
    named = os.environ.get("EXTRACTION_AZURE_WORKSPACE")
    if not named:
        pytest.skip("EXTRACTION_AZURE_WORKSPACE names no real workspace")
    subscription, group, workspace = named.split("/")
    return azure_service(SETTINGS.model_copy(update={"subscription": subscription, "resource_group": group, "workspace": workspace}))


def test_the_contract_that_the_double_shares_with_azure(any_service: AzureService, bundle: Bundle) -> None:
    """An endpoint without deployments costs nothing: made, read, refused wrong traffic, deleted."""
    name = f"contract-{os.urandom(4).hex()}"
    specs = make_specs(bundle, SETTINGS.model_copy(update={"endpoint": name}))
    assert any_service.endpoint(name) is None
    any_service.create_endpoint(specs)
    try:
        made = any_service.endpoint(name)
        assert made is not None
        assert (made.traffic, made.mirror, made.deployments, made.auth) == ({}, {}, {}, "key")
        assert made.scoring_url.endswith("/score")
        with pytest.raises(InputError, match="Azure says"):
            any_service.set_traffic(name, {"ghost": 100}, {})
    finally:
        any_service.delete_endpoint(name)
    assert any_service.endpoint(name) is None
