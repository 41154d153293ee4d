"""A bundle onto its endpoint, step by step: created without traffic, asked by header, mirrored, 10 %, all, the old deployment deleted.

At a failure in any step but the last, traffic and mirror are set back to what they were, and what this rollout made is deleted. Deleting the
old deployment comes after the point of no return: if that fails, the new one goes on serving, and the report says what is left.
A rollout on the double is `rehearsed`, whatever it did; only one on Azure can be `deployed`.
"""

from __future__ import annotations

import contextlib
import difflib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from extraction_assets.errors import InputError
from extraction_assets.serving.azure_costs import CostSheet, cost_sheet
from extraction_assets.serving.azure_double import ArmError, AzureDouble, BundleServers
from extraction_assets.serving.azure_service import AzureService, EndpointState, double_service
from extraction_assets.serving.azure_specs import Specs, checked_specs, weight_bytes
from extraction_assets.serving.bundle import GOLDEN, Bundle
from extraction_assets.serving.client import EndpointClient, Refused
from extraction_assets.serving.golden import agreement
from extraction_assets.settings import DeploymentSettings

Outcome = Literal["planned", "unchanged", "rehearsed", "deployed", "rolled back"]
FIRST_SHARE = 10
"""percent of the traffic that the new deployment answers first"""
_NO_JSON = ("answer_truncated", "answer_invalid")
"""refusals that a golden page has coming where its golden answer is no whole JSON either"""


@dataclass(frozen=True)
class Plan:
    """What a rollout would do, from what stands there now."""

    specs: Specs
    before: EndpointState | None
    """None: the endpoint is to be created"""
    old: str | None
    """the deployment that has all traffic"""
    upload: bool
    """the bundle is not in the workspace yet"""
    steps: tuple[str, ...]
    diff: tuple[str, ...]
    costs: CostSheet

    @property
    def new(self) -> str:
        return str(self.specs.deployment["name"])

    def as_json(self) -> dict[str, Any]:
        before = None if self.before is None else {"traffic": dict(self.before.traffic), "deployments": dict(self.before.deployments)}
        return {
            "old": self.old,
            "new": self.new,
            "before": before,
            "steps": list(self.steps),
            "diff": list(self.diff),
            "costs": self.costs.as_json(),
        }

    def lines(self) -> list[str]:
        standing = "is to be created" if self.before is None else f"has traffic {dict(self.before.traffic)}"
        return [
            f"endpoint {self.specs.endpoint['name']}: {standing}",
            f"deployment {self.new}: {', '.join(self.steps)}",
            *self.diff,
            *self.costs.lines(),
        ]


@dataclass
class Report:
    target: str
    outcome: Outcome
    endpoint: str
    deployment: str
    bundle: str
    steps: list[dict[str, Any]] = field(default_factory=list)
    """{"step", "seconds", what it found}"""
    failed: str | None = None
    """step: why"""
    left: list[str] = field(default_factory=list)
    """what could not be set back or deleted, and why"""
    traffic: dict[str, int] | None = None
    """at the end"""

    def as_json(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if value is not None}


def make_plan(service: AzureService, bundle: Bundle, settings: DeploymentSettings) -> Plan:
    """Changes nothing. Raises InputError: specs that cannot work, no golden pages, another rollout under way."""
    specs = checked_specs(bundle, settings)
    if not bundle.manifest.golden:
        raise InputError(str(bundle.folder), "holds no golden pages", "some, to prove a deployment by", "Materialize serving_bundle again")
    name, new = settings.endpoint, str(specs.deployment["name"])
    before = service.endpoint(name)
    old = None
    if before is not None:
        if before.mirror or len(before.traffic) > 1:
            shares = f"traffic {dict(before.traffic)}, mirror {dict(before.mirror)}"
            raise InputError(f"endpoint {name}", f"is in the middle of a rollout: {shares}", "one deployment with all traffic", "Finish it or take it back first")  # fmt: skip
        if before.auth.lower() != settings.auth:
            raise InputError(f"endpoint {name}", f"has auth_mode {before.auth}", settings.auth, "Correct deployment.auth: it cannot be changed later")  # fmt: skip
        old = next(iter(before.traffic), None)
    upload = not service.has_model(specs, bundle)
    standing = service.deployment(name, old) if old else {}
    costs = cost_sheet(settings, weight_bytes(bundle), specs.deployment["request_settings"]["max_concurrent_requests_per_instance"])
    steps = [step for step, _ in _steps(old == new, before, old, upload)]
    return Plan(specs, before, old, upload, tuple(steps), _diff(standing, service.spec_as_sent(specs), old, new), costs)


def _steps(done: bool, before: EndpointState | None, old: str | None, upload: bool) -> list[tuple[str, str]]:
    """(step, method of Rollout) in their order."""
    if done:
        return [("smoke", "_smoke")]
    return [
        *([("create endpoint", "_create_endpoint")] if before is None else []),
        *([("upload bundle", "_upload")] if upload else []),
        ("create deployment at 0 %", "_create_deployment"),
        ("smoke", "_smoke"),
        *([("mirror", "_mirror"), (f"{FIRST_SHARE} %", "_first_share")] if old else []),
        ("100 %", "_all"),
        *([("delete old deployment", "_delete_old")] if old else []),
    ]


def _diff(standing: dict[str, Any], wanted: dict[str, Any], old: str | None, new: str) -> tuple[str, ...]:
    there, to_be = (yaml.safe_dump(part, sort_keys=True).splitlines() if part else [] for part in (standing, wanted))
    return tuple(difflib.unified_diff(there, to_be, fromfile=old or "nothing", tofile=new, lineterm="", n=1))


STANDING = "standing"
"""the deployment that a rehearsal replaces"""


def rehearse(bundle: Bundle, settings: DeploymentSettings, dry_run: bool, say: Callable[[str], None]) -> tuple[Plan, Report]:
    """On the double, which begins with the same bundle behind a deployment `standing`, so that every step is gone through."""
    specs = checked_specs(bundle, settings)
    model = specs.deployment["model"]
    servers = BundleServers()
    try:
        with AzureDouble(servers, {(model["name"], model["version"]): bundle.folder}) as double, double_service(double) as service:
            say("fake: starting the bundle's server; nothing of this leaves the machine")
            double.seed(specs, STANDING)
            return roll_out(service, bundle, settings, dry_run, say)
    except ArmError as error:
        raise InputError(str(bundle.folder), error.message) from None
    finally:
        servers.close()


def roll_out(
    service: AzureService, bundle: Bundle, settings: DeploymentSettings, dry_run: bool, say: Callable[[str], None]
) -> tuple[Plan, Report]:
    plan = make_plan(service, bundle, settings)
    if dry_run:
        return plan, Report(service.target, "planned", settings.endpoint, plan.new, bundle.digest)
    return plan, Rollout(service, bundle, settings, plan, say).run()


class Rollout:
    """One run of a plan."""

    def __init__(
        self,
        service: AzureService,
        bundle: Bundle,
        settings: DeploymentSettings,
        plan: Plan,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service, self._bundle, self._settings, self._plan, self._say, self._sleep = service, bundle, settings, plan, say, sleep
        self._made_endpoint = self._made_deployment = self._moved = False
        outcome: Outcome = "deployed" if service.target == "azure" else "rehearsed"
        self.report = Report(service.target, outcome, settings.endpoint, plan.new, bundle.digest)

    def run(self) -> Report:
        """Never raises for what the service or the new deployment does: the report says it. An interrupt is rolled back, then raised."""
        plan, report = self._plan, self.report
        done = plan.old == plan.new
        for step, method in _steps(done, plan.before, plan.old, plan.upload):
            began = time.monotonic()
            try:
                self._say(f"{report.target}: {step}")
                found = getattr(self, method)()
            except BaseException as error:
                self._fail(step, error)
                if not isinstance(error, InputError):
                    raise
                break
            report.steps.append({"step": step, "seconds": round(time.monotonic() - began, 2), **(found or {})})
        else:
            if done:
                report.outcome = "unchanged"
        with contextlib.suppress(InputError):
            state = self._service.endpoint(report.endpoint)
            report.traffic = None if state is None else dict(state.traffic)
        return report

    # --- steps ---------------------------------------------------------------------------------------------------------------

    def _create_endpoint(self) -> None:
        self._made_endpoint = True  # also where it half succeeds
        self._service.create_endpoint(self._plan.specs)

    def _upload(self) -> None:
        self._service.upload_model(self._plan.specs, self._bundle)

    def _create_deployment(self) -> None:
        before = self._plan.before
        self._made_deployment = before is None or self._plan.new not in before.deployments
        self._service.create_deployment(self._plan.specs)

    def _smoke(self) -> dict[str, Any]:
        return self._prove(self._plan.new)

    def _mirror(self) -> dict[str, Any]:
        self._move({self._old: 100}, {self._plan.new: self._settings.mirror})
        return self._soak()

    def _first_share(self) -> dict[str, Any]:
        self._move({self._old: 100 - FIRST_SHARE, self._plan.new: FIRST_SHARE}, {})
        return self._soak()

    def _all(self) -> dict[str, Any]:
        self._move({self._plan.new: 100}, {})
        return self._prove(None)

    def _delete_old(self) -> None:
        self._service.delete_deployment(self._settings.endpoint, self._old)

    @property
    def _old(self) -> str:
        assert self._plan.old is not None
        return self._plan.old

    def _move(self, traffic: dict[str, int], mirror: dict[str, int]) -> None:
        self._moved = True
        self._service.set_traffic(self._settings.endpoint, traffic, mirror)

    def _soak(self) -> dict[str, Any]:
        """Waits under live traffic, then asks the new deployment again, and the endpoint as its users do."""
        if self._service.target == "azure":
            self._sleep(60 * self._settings.soak_minutes)
        proof = self._prove(self._plan.new)
        with self._asking(None) as client:
            # the old bundle may know other types: its refusals of a golden page are none of this rollout's faults
            by = Counter("refused" if isinstance(answer, Refused) else _bundle(answer)[:12] for _, answer in self._answers(client))
        return {**proof, "by_traffic": dict(by)}

    # --- proof ---------------------------------------------------------------------------------------------------------------

    def _prove(self, deployment: str | None) -> dict[str, Any]:
        """Served answers against the bundle's own. Raises InputError where they differ by more than the bundle allows."""
        where = f"deployment {deployment}" if deployment else f"endpoint {self._settings.endpoint}"
        answers: list[object] = [None] * len(self._bundle.manifest.golden)
        with self._asking(deployment) as client:
            for index, answer in self._answers(client):
                if isinstance(answer, Refused):
                    if answer.code not in _NO_JSON:
                        raise InputError(where, f"refused golden page {index + 1}: {answer.code}: {answer.message}")
                    continue
                if _bundle(answer) != self._bundle.digest:
                    raise InputError(where, f"golden page {index + 1} was answered by the bundle {_bundle(answer)}", self._bundle.digest)
                answers[index] = answer.get("answer")
        share, asked = agreement(self._bundle, answers), self._bundle.manifest.serving.golden_agreement
        if share < asked:
            raise InputError(where, f"{share:.3f} of the golden values are answered as on this machine", f"at least {asked:g}")
        return {"golden_pages": len(answers), "agreement": round(share, 6)}

    @contextlib.contextmanager
    def _asking(self, deployment: str | None) -> Iterator[EndpointClient]:
        state = self._service.endpoint(self._settings.endpoint)
        if state is None:
            raise InputError(f"endpoint {self._settings.endpoint}", "is gone")
        with self._service.scoring(self._settings.endpoint, state.scoring_url, deployment) as client:
            yield client

    def _answers(self, client: EndpointClient) -> Iterator[tuple[int, dict[str, Any] | Refused]]:
        for index, page in enumerate(self._bundle.manifest.golden):
            yield index, client.score((self._bundle.folder / GOLDEN / f"{page.page}.png").read_bytes(), page.type)

    # --- the way back --------------------------------------------------------------------------------------------------------

    def _fail(self, step: str, error: BaseException) -> None:
        report = self.report
        report.failed = f"{step}: {error if isinstance(error, InputError) else type(error).__name__}"
        if step == "delete old deployment":
            report.left.append(f"deployment {self._plan.old}: not deleted, and still paid for")
            return
        self._say(f"{report.target}: {report.failed}")
        self._say(f"{report.target}: setting back what was")
        report.outcome = "rolled back"
        before, name = self._plan.before, self._settings.endpoint
        if self._moved and before is not None:
            traffic, mirror = dict(before.traffic), dict(before.mirror)
            self._undo(f"traffic {traffic}", lambda: self._service.set_traffic(name, traffic, mirror))
        if self._made_endpoint:
            self._undo(f"endpoint {name}", self._delete_made_endpoint)
        elif self._made_deployment:
            self._undo(f"deployment {self._plan.new}", self._delete_made_deployment)

    def _delete_made_endpoint(self) -> None:
        if self._service.endpoint(self._settings.endpoint) is not None:
            if self._moved:
                self._service.set_traffic(self._settings.endpoint, {}, {})
            self._delete_made_deployment()
            self._service.delete_endpoint(self._settings.endpoint)

    def _delete_made_deployment(self) -> None:
        state = self._service.endpoint(self._settings.endpoint)
        if state is not None and self._plan.new in state.deployments:
            self._service.delete_deployment(self._settings.endpoint, self._plan.new)

    def _undo(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # whatever it is, what comes after it is still to be taken back
            self.report.left.append(f"{what}: {error}")


def _bundle(answer: dict[str, Any]) -> str:
    model = answer.get("model")
    return str(model.get("bundle", "")) if isinstance(model, dict) else ""
