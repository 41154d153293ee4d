"""The Dagster instance of a home: home/dagster holds its configuration, runs and event log."""

from __future__ import annotations

import logging
import os

import dagster as dg
import yaml
from filelock import FileLock

from extraction_assets.errors import InputError
from extraction_assets.home import Home
from extraction_assets.record import VENDORS
from extraction_assets.settings import OUTSIDE
from extraction_assets.store import write_atomically

_CONFIGURATION = """\
# Written once by extraction; yours to change.
telemetry:
  enabled: false
nux:
  enabled: false     # no invitation to a mailing list over the graph
concurrency:
  pools:
    default_limit: 1   # one training at a time
    granularity: op
  runs:
    max_concurrent_runs: 2
run_monitoring:
  enabled: true
  free_slots_after_run_end_seconds: 60
"""


def open_instance(home: Home) -> dg.DagsterInstance:
    """The home's instance; made at the first call. Close it (it is a context manager)."""
    try:
        home.dagster.mkdir(parents=True, exist_ok=True)
        path = home.dagster / "dagster.yaml"
        if not path.exists():
            write_atomically(path, _CONFIGURATION.encode())
        tables = home.dagster / ".tables"
    except OSError as error:
        raise InputError(
            str(home.dagster), f"cannot be written: {error.strerror or error}", do="Check space and rights of the home"
        ) from None
    os.environ["DAGSTER_HOME"] = str(home.dagster)
    # Alembic tells of every table it makes in a new home
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # two processes that make the tables of a new home at once leave a database that nothing can open again
    with FileLock(home.dagster / ".tables.lock"):
        try:
            instance = dg.DagsterInstance.from_config(str(home.dagster))
        except (yaml.YAMLError, dg.DagsterInvalidConfigError) as error:
            found = f"is no configuration of Dagster: {str(error).splitlines()[0]}"
            raise InputError(str(path), found, do="Correct it, or delete it: it is then written anew") from None
        if not tables.exists():
            instance.get_runs(limit=1)
            instance.get_dynamic_partitions(VENDORS)
            instance.all_instigator_state()
            tables.touch()
    return instance


@dg.logger(None, description="Warnings of our assets and what a step waits for, one line each. Everything else stands in the event log.")
def terminal_logger(init_context: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("extraction", level=logging.DEBUG)
    handler = logging.StreamHandler()
    handler.addFilter(_ForUsers())
    handler.setFormatter(_UserMessage("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    return logger


class _ForUsers(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._waiting: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        pool = _pool_waited_for(record)
        if pool is not None:  # Dagster says it again and again
            known = pool in self._waiting
            self._waiting.add(pool)
            return not known
        if _event(record) is not None:
            return False
        # a settings asset says that of its settings in the event log; `update` has said it of all before its first run
        return record.levelno >= logging.WARNING and OUTSIDE not in record.getMessage()


class _UserMessage(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        pool = _pool_waited_for(record)
        if pool is not None:
            step = getattr(_event(record), "step_key", None)
            return f"{step} waits: another run has the pool {pool}, which takes one at a time (in the UI: Deployment, Concurrency)"
        message = getattr(record, "dagster_meta", {}).get("orig_message") or record.getMessage()
        return f"{record.levelname.lower()}: {message}"


def _event(record: logging.LogRecord) -> dg.DagsterEvent | None:
    event: dg.DagsterEvent | None = getattr(record, "dagster_meta", {}).get("dagster_event")
    return event


def _pool_waited_for(record: logging.LogRecord) -> str | None:
    """Of the event by which Dagster says that a step is blocked: an engine's, whose metadata name the pool."""
    event = _event(record)
    if event is None or not event.is_engine_event:
        return None
    pool = event.engine_event_data.metadata.get("pool")
    return None if pool is None else str(pool.value)
