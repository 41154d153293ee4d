"""Typed settings of a home, one section per settings asset. settings_file reads them from settings.yaml.

Every section is a frozen pydantic model and a node of the graph; its digest is over the parsed values, so a comment, the
order of keys or a default written out changes nothing. Training values outside the ranges we stand for work, with a warning.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from extraction_assets.page_budget import PageBudget
from extraction_assets.store import digest_of

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the section's values (defaults included)."""
        return digest_of(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, values: Any) -> Self:
        """The section from its stored JSON value (lists where the section holds tuples)."""
        return cls.model_validate(lists_to_tuples(values))


class RenderSettings(Section):
    """How pages become images."""

    dpi: Annotated[float, Field(ge=18, le=600)] = 120
    """pixels per inch asked for; the page budget may force less on large pages"""
    max_visual_tokens: Annotated[int, Field(ge=4, le=16384)] = 1408
    """most visual tokens (32 x 32 px each) a page may take; A4 at 120 dpi takes 1,408"""
    max_pages: Annotated[int, Field(ge=1, le=5000)] = 200
    """a document with more pages is refused"""
    page_seconds: Annotated[float, Field(gt=0, le=600)] = 20
    """wall-clock limit for one page; the worker is killed beyond it"""
    memory_mb: Annotated[int, Field(ge=256, le=65536)] = 2048
    """memory limit of one rendering worker"""
    passwords: tuple[str, ...] = ()
    """tried in turn on encrypted PDFs"""

    @property
    def budget(self) -> PageBudget:
        return PageBudget(dpi=self.dpi, max_visual_tokens=self.max_visual_tokens)


class TargetSettings(Section):
    """How labels become page targets."""

    unplaced_values: Literal["null", "drop"] = "null"
    """a label value that stands nowhere in the text layer: set to null in the target, or drop the document's examples"""
    unknown_label_keys: Literal["ignore", "error"] = "ignore"
    """a label key that the schema does not have: left out and reported, or an error"""
    wire: Literal["objects", "rows_as_arrays"] = "objects"
    """how the model is taught to write rows: as objects, or as arrays without their keys, which takes fewer tokens. Everybody else sees
    objects; an adapter answers in the way it was taught"""


class NegativeSettings(Section):
    """Hard negatives: how many of each kind per document page, as a share of the pages (0.5: every other page)."""

    seed: int = 0
    rotated: Share = 0.25
    """small angles and quarter turns"""
    stamped: Share = 0.25
    """a stamp over the page"""
    noisy: Share = 0.25
    """scan noise: blur, speckle, uneven light, JPEG"""
    missing_field: Share = 0.25
    """a field's words erased, its target null"""
    missing_at_once: Annotated[int, Field(ge=1, le=16)] = 1
    """fields erased from such a page, at most; how many is drawn. More of them teach more of null with as many pages"""
    blank: Share = 0.02
    """an empty page: all null"""
    foreign: Share = 0.03
    """a page that is no document of this kind: all null"""
    max_angle: Annotated[float, Field(ge=0, le=15)] = 2.5
    """largest small angle, degrees"""
    quarter_turns: Share = 0.2
    """share of the rotated pages that are turned by 90, 180 or 270 degrees"""


class SplitSettings(Section):
    """Who learns, who validates, who is tested. Assignments are stable for life under the same values."""

    seed: int = 0
    train: Share = 0.8
    val: Share = 0.1
    test: Share = 0.1
    held_out_vendors: tuple[str, ...] = ()
    """vendors ("type/vendor") whose documents all go to test: unseen templates"""
    near_duplicate: Share = 0.9
    """share of common word triples from which two documents are twins and share a split"""

    @model_validator(mode="after")
    def _sum(self) -> SplitSettings:
        if abs(self.train + self.val + self.test - 1) > 1e-9:
            raise ValueError(f"train + val + test must be 1, not {self.train + self.val + self.test:g}")
        if self.train == 0:
            raise ValueError("train must be more than 0")
        return self


class TrainingSettings(Section):
    """The training run. Ranges we stand for: RECOMMENDED below."""

    method: Literal["lora", "qlora"] = "lora"
    targets: Literal["attention", "attention+mlp"] = "attention+mlp"
    """linears of the language model that get an adapter; never the vision tower"""
    r: Annotated[int, Field(ge=1, le=512)] = 16
    alpha: Annotated[float, Field(gt=0, le=1024)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    start: Literal["base", "champion"] = "base"
    """weights that a run starts from. champion: where it fits these settings and has learnt from no document of the test split; else the base"""
    rslora: bool = False
    """scale adapters by alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023)"""
    dora: bool = False
    """adapt direction and magnitude of each weight apart (Liu et al. 2024); slower, and takes more memory"""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    effective_batch: Annotated[int, Field(ge=1, le=65536)] = 32
    """examples per optimizer step, reached by accumulation"""
    micro_batch: Annotated[int, Field(ge=1, le=1024)] = 4
    """room of a forward pass, in longest examples: as many tokens as this many of them have, filled with however many examples fit"""
    pack_tokens: Annotated[int, Field(ge=1)] | None = None
    """room of a forward pass, in tokens (None: micro_batch decides). An example longer than that has a forward pass of its own"""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """what forward and backward passes compute in; the adapter itself is float32. auto: bfloat16 where the GPU or CPU multiplies it
    itself, and faster (a CPU with AMX, or AMD's AVX512_BF16), else float32"""
    recompute: Literal["none", "mlp", "layers"] = "none"
    """activations that are computed again in the backward pass instead of kept: of each MLP, or of each whole layer. Same numbers"""
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.03
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    max_target_tokens: Annotated[int, Field(ge=1, le=32768)] = 768
    """tokens that a target may have; a longer one is never truncated"""
    over_length: Literal["skip", "error"] = "skip"
    """what happens to a longer one: left out, counted and reported, or an error"""
    unwritable: Literal["skip", "error"] = "skip"
    """what happens to an example whose target its schema's grammar rejects, such as a date that is none: left out, counted and
    reported, or an error"""
    exploding: Literal["stop", "continue"] = "stop"
    """what happens where the loss rises far above that of the first step (training.loss.exploding_since). One that is no finite number stops always"""
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """stop after this many optimizer steps (None: epochs decide)"""
    validate_every: Annotated[int, Field(ge=1)] | None = None
    """optimizer steps between looks at the val split (None: at the end of each epoch); the last step is always looked at"""
    val_answers: Annotated[int, Field(ge=0)] = 32
    """pages of val, drawn by seed, that are answered freely at each validation: strict JSON and field accuracy of the run so far (0: none)"""
    keep: Literal["last", "best", "best_answers"] = "last"
    """which weights the adapter has: those of the last step, of the validation with the lowest response loss, or of the one whose
    answers had the most fields right (the lower loss among equals)"""
    patience: Annotated[int, Field(ge=1)] | None = None
    """stop after this many validations in a row that were no better than the best (None: never)"""
    checkpoint_every: Annotated[int, Field(ge=1)] = 10
    """optimizer steps between checkpoints; a killed run resumes at the last one"""
    shuffle_targets: bool = False
    """a control run: every page is taught the target of some page of its type. What it scores, no model has to read for. It never serves"""
    seed: int = 0

    @model_validator(mode="after")
    def _answers_to_judge_by(self) -> TrainingSettings:
        if self.keep == "best_answers" and self.val_answers == 0:
            raise ValueError("keep: best_answers needs val_answers of 1 or more")
        return self


class AzureTrainingSettings(Section):
    """The workspace whose cluster trains, where compute.where is azure_ml. Credentials are never settings: azure-identity finds them."""

    subscription: str = ""
    resource_group: str = ""
    workspace: str = ""
    cluster: str = ""
    """name of the compute cluster; its machines need compute.processes GPUs each"""
    environment: str = ""
    """azureml:NAME:VERSION, with this package, its dependencies and azure-storage-blob, azure-identity installed"""
    datastore: str = "workspaceblobstore"
    """where checkpoints lie while the run lasts, so that one that was preempted resumes"""
    messages: str = ""
    """https://ACCOUNT.blob.core.windows.net/CONTAINER that progress and logs travel through; the cluster's identity must be able to write there"""
    hours: Annotated[float, Field(gt=0, le=720)] = 24
    """the service cancels a run that takes longer"""


class RayTrainingSettings(Section):
    """The cluster that trains, where compute.where is ray. It sees the home under the same path (a shared file system)."""

    address: str = "http://127.0.0.1:8265"
    """of its dashboard, which takes jobs"""
    python: str = "python"
    """the interpreter there that has this package"""
    gpus: Annotated[float, Field(ge=0, le=1024)] = 0
    """GPUs that the job reserves: compute.processes of them, or 0 on a cluster of CPUs"""


class FleetSettings(Section):
    """Who draws page images. A page has the same bytes wherever it is drawn: machines with other engines are refused."""

    backend: Literal["here", "ray"] = "here"
    """here: the processes of this machine. ray: the machines of a Ray cluster (Ray Data), which see the store under the same path"""
    address: Annotated[str, Field(min_length=1)] = "auto"
    """of the cluster: auto (the one that this machine is in), HOST:PORT, or local (one that this process starts for itself)"""
    documents_per_task: Annotated[int, Field(ge=1, le=10_000)] = 16
    """that travel to a worker together"""


class ComputeSettings(Section):
    """Where lora_adapter trains, by how many processes, and who draws pages. Part of no digest: it changes weights by rounding only."""

    where: Literal["here", "azure_ml", "ray"] = "here"
    processes: Annotated[int, Field(ge=1, le=1024)] | None = None
    """of a machine (None: one for each GPU of this machine, without a GPU one; elsewhere the number has to be said)"""
    machines: Annotated[int, Field(ge=1, le=1024)] = 1
    """that train together (azure_ml)"""
    sharding: Literal["none", "fsdp2", "zero2", "zero3"] = "none"
    """what each process holds. none: everything. fsdp2: its part of every layer (training.method: lora only). zero2: its part of gradients and
    optimizer; zero3: of every layer too (lora only). Both by DeepSpeed: pip install 'extraction-assets[deepspeed]'"""
    azure_ml: AzureTrainingSettings = AzureTrainingSettings()
    ray: RayTrainingSettings = RayTrainingSettings()
    rendering: FleetSettings = FleetSettings()

    @model_validator(mode="after")
    def _fits(self) -> ComputeSettings:
        if self.where != "here" and self.processes is None:
            raise ValueError(f"where: {self.where} needs processes: how many a machine there runs, one for each GPU")
        if self.machines > 1 and self.where != "azure_ml":
            raise ValueError(f"machines: {self.machines} needs where: azure_ml")
        return self


class TrackingSettings(Section):
    """Where a training run can be followed beside TensorBoard. Not part of any digest."""

    trackers: tuple[Literal["mlflow", "wandb"], ...] = ()
    """each needs its package: pip install 'extraction-assets[mlflow]' or [wandb]"""
    project: Annotated[str, Field(min_length=1)] = "extraction_assets"
    """MLflow's experiment, W&B's project"""
    mlflow_uri: str | None = None
    """tracking server, database or folder (None: MLFLOW_TRACKING_URI, else MLflow's default). W&B is told by its own variables"""


class DecodingSettings(Section):
    """How answers are generated: greedy. Below these, predictions; a change here leaves the adapter alone."""

    max_output_tokens: Annotated[int, Field(ge=1, le=32768)] = 768
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    constrained: bool = True
    """an answer is held to its schema's grammar: strict, schema-valid JSON or an explicit truncation. False: the model's free text"""


class EvaluationSettings(Section):
    """Scores, intervals and the gate."""

    headline: Literal["field_accuracy", "document_exact", "row_exact_f1"] = "field_accuracy"
    """the challenger must be better on this"""
    bootstrap: Annotated[int, Field(ge=0, le=100000)] = 1000
    """resamples (over documents) for 95 % intervals"""
    margin: Share = 0.0
    """how much better the challenger must be"""
    guard_margin: Share = 0.02
    """how much worse a guard may become: each amount and id field, the strict-JSON rate, the worst vendor"""
    rules_baseline: bool = True
    """beside the models, what label-proximity rules read out of the text layer: what one would have without training"""
    target_error: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """share of the pages that go without a person on which something may be wrong; val decides which those are"""
    seed: int = 0


class ServingSettings(Section):
    """The bundle, and the endpoint that answers from it. Its limits are published by the endpoint (GET /limits)."""

    weights: Literal["adapter", "merged"] = "adapter"
    """what a bundle holds: base and adapter side by side (answers are those of `predict`), or one merged checkpoint, each adapted weight
    rounded once more"""
    golden_pages: Annotated[int, Field(ge=1, le=50)] = 3
    """clean test pages of each type in a bundle, with their answers: a server that answers them differently does not become ready"""
    golden_agreement: Share = 0.98
    """share of the golden values that a server must answer as the bundle says; less than 1 because another processor rounds otherwise"""
    max_image_mb: Annotated[float, Field(gt=0, le=200)] = 10.0
    """largest image that a request may carry (10^6 bytes)"""
    max_megapixels: Annotated[float, Field(gt=0, le=250)] = 50.0
    """largest picture that is decoded, judged by its header"""
    waiting: Annotated[int, Field(ge=1, le=10000)] = 64
    """requests that may wait; more are told to come again (429)"""
    request_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """a request that has no answer by then gets a retryable error; Azure ML allows 180 at most"""


class DeploymentSettings(Section):
    """The endpoint on Azure ML: what `extraction deploy` writes and endpoint_deployment does. Below these, endpoint_deployment alone."""

    target: Literal["none", "fake", "azure"] = "none"
    """what endpoint_deployment does with a bundle. none: nothing; fake: rehearses the rollout on this machine; azure: rolls it out"""
    automatic: bool = False
    """endpoint_deployment runs by itself when the bundle or this section changes. False: Azure is touched only where somebody asks for that
    asset by its name, and under the daemon it never runs"""
    endpoint: str = "extraction"
    sku: str = "Standard_NV36ads_A10_v5"
    instances: Annotated[int, Field(ge=1, le=50)] = 1
    image: str | None = None
    """REGISTRY/NAME@sha256:... of the container that the written Dockerfile builds"""
    server: Literal["extraction", "azureml", "vllm"] = "extraction"
    """what that container runs. extraction: `extraction serve`; azureml: score.py in Azure's own inference server; vllm: `extraction serve` in
    front of vLLM, for GPUs (serving.weights: merged)"""
    fp8: bool = False
    """vllm alone: weights and activations in 8 bits, made as the server starts (on GPUs before Ada and Hopper the weights alone)"""
    auth: Literal["key", "aml_token", "aad_token"] = "aad_token"
    public: bool = False
    """reachable from the internet"""
    mirror: Annotated[int, Field(ge=1, le=50)] = 20
    """share of the live traffic, in percent, that a new deployment gets a copy of before it answers anybody"""
    soak_minutes: Annotated[float, Field(ge=0, le=1440)] = 5
    """how long a rollout on Azure stays at the mirror and at 10 % before it looks again and goes on"""
    subscription: str | None = None
    resource_group: str | None = None
    workspace: str | None = None
    """where `deploy --target azure` goes"""
    price_per_hour: dict[str, Annotated[float, Field(ge=0)]] = {}
    """SKU -> what your price list says for one instance; the cost sheet knows no price of its own"""
    currency: str = "USD"
    price_date: str | None = None
    """day of that price list, YYYY-MM-DD"""
    price_source: str | None = None
    """where those prices stand"""

    @model_validator(mode="after")
    def _quantized_by_vllm(self) -> DeploymentSettings:
        if self.fp8 and self.server != "vllm":
            raise ValueError(f"fp8 needs server: vllm, not {self.server}")
        return self

    @field_validator("price_date")
    @classmethod
    def _day(cls, value: str | None) -> str | None:
        if value is not None:
            date.fromisoformat(value)
        return value

    @model_validator(mode="after")
    def _priced(self) -> DeploymentSettings:
        if self.price_per_hour and not (self.price_date and self.price_source):
            raise ValueError("price_per_hour needs price_date and price_source: a price without them is a rumour")
        return self


class SharedSettings(Section):
    """Where landing/ and store/ lie for more than this machine: fsspec addresses. Not part of any digest.

    Credentials and endpoints come from the environment (AWS_*, AZURE_STORAGE_*) or fsspec's configuration.
    """

    landing: str | None = None
    """such as s3://bucket/landing or abfs://container/landing; exchanged with landing/ before every look at it. None: landing/ alone"""
    store: str | None = None
    """every object and adapter goes there before it counts, and comes from there where it is missing here. None: store/ alone"""

    @field_validator("landing", "store")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        scheme, separator, rest = value.partition("://")
        if not separator or not rest.strip("/") or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
            raise ValueError("expected an address such as s3://bucket/folder or abfs://container/folder")
        if re.match(r"[^/]*:[^/]*@", rest):
            raise ValueError("an address must hold no password: set the credentials in the environment")
        import fsspec

        if scheme not in fsspec.available_protocols():
            raise ValueError(f"unknown kind of address {scheme}://, expected one such as s3://, abfs://, gs:// or file://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _apart(self) -> SharedSettings:
        if (
            self.landing
            and self.store
            and (f"{self.landing}/".startswith(f"{self.store}/") or f"{self.store}/".startswith(f"{self.landing}/"))
        ):
            raise ValueError("landing and store must be two folders, neither in the other")
        return self


class AutomationSettings(Section):
    """The nightly run. Not part of any digest."""

    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    sensor_seconds: Annotated[int, Field(ge=5)] = 30
    """how often landing/ is looked at"""
    freshness_hours: Annotated[float, Field(ge=0.1, le=100_000)] = 48
    """the champion counts as stale in the UI after this long without a nightly decision"""

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"unknown time zone {value!r}, expected a name such as Europe/Berlin")
        return ZoneInfo(value).key

    @field_validator("cron")
    @classmethod
    def _cron(cls, value: str) -> str:
        from croniter import croniter

        if not croniter.is_valid(value) or len(value.split()) != 5:
            raise ValueError(f"not a cron line of five fields: {value!r}")
        try:
            croniter(value).get_next()
        except ValueError:  # 31 February
            raise ValueError(f"this cron line never comes: {value!r}") from None
        return value


class Settings(BaseModel):
    """All of settings.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    base_model: Annotated[str, Field(min_length=1)] = "base_models/tiny-qwen3-vl"
    """a folder (relative to the home) or a hub name such as Qwen/Qwen3-VL-8B-Instruct"""
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """processes for rendering and images; 0: one per core. Not part of any digest"""
    visual_memory_gb: Annotated[float, Field(ge=0, le=10_000)] = 2.0
    """host memory for what the vision tower made of pages, so that it sees each but once in a run of several epochs; changes no number.
    Not part of any digest"""
    render: RenderSettings = RenderSettings()
    targets: TargetSettings = TargetSettings()
    negatives: NegativeSettings = NegativeSettings()
    splits: SplitSettings = SplitSettings()
    training: TrainingSettings = TrainingSettings()
    compute: ComputeSettings = ComputeSettings()
    tracking: TrackingSettings = TrackingSettings()
    decoding: DecodingSettings = DecodingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    serving: ServingSettings = ServingSettings()
    deployment: DeploymentSettings = DeploymentSettings()
    automation: AutomationSettings = AutomationSettings()
    shared: SharedSettings = SharedSettings()


RECOMMENDED: dict[str, tuple[float, float]] = {
    "training.r": (8, 16),
    "training.alpha": (16, 32),
    "training.dropout": (0, 0.05),
    "training.learning_rate": (1e-4, 2e-4),
    "training.epochs": (1, 3),
    "training.effective_batch": (32, 128),
    "training.warmup_ratio": (0.03, 0.03),
    "training.max_target_tokens": (256, 768),
    "decoding.max_output_tokens": (256, 768),
}
"""Ranges of the recipe we stand for (inclusive). Values outside work, with a warning that names the range."""

QLORA_LEARNING_RATE = (1e-4, 1.5e-4)


OUTSIDE = "is outside the recommended range"
"""in each of these lines, and in no other warning"""


def recommendation_warnings(settings: Settings) -> list[str]:
    """One line for every value outside its recommended range."""
    ranges = dict(RECOMMENDED)
    if settings.training.method == "qlora":
        ranges["training.learning_rate"] = QLORA_LEARNING_RATE
    lines = []
    for key, (low, high) in ranges.items():
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        if not low <= value <= high:
            span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            lines.append(f"{key}: {value:g} {OUTSIDE} {span}")
    return lines


def lists_to_tuples(value: Any) -> Any:
    """YAML has lists; frozen sections hold tuples, and strict mode does not convert."""
    if isinstance(value, dict):
        return {key: lists_to_tuples(item) for key, item in value.items()}
    return tuple(lists_to_tuples(item) for item in value) if isinstance(value, list) else value
