"""When an asset runs by itself (declarative automation). The planner behind `update` decides the same from recorded digests."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

AC = dg.AutomationCondition


def _changed(spoken_for: Sequence[str] = ()) -> dg.AutomationCondition:
    # not eager(): that fires on a re-run with an unchanged data version and requests whole chains (dagster #25439, #28063);
    # missing(), not newly_missing(): an asset that was never built would never be requested
    inputs = AC.any_deps_match(AC.data_version_changed())
    if spoken_for:
        inputs = inputs.ignore(dg.AssetSelection.assets(*spoken_for))
    return AC.missing() | AC.code_version_changed() | inputs


def _possible() -> dg.AutomationCondition:
    return (
        ~AC.any_deps_missing()
        & ~AC.any_deps_in_progress()
        & ~AC.any_deps_match(AC.will_be_requested())  # of a diamond the lower corner waits for both sides
        & AC.all_deps_blocking_checks_passed()
        & ~AC.in_progress()
    )


def on_change(spoken_for: Sequence[str] = ()) -> dg.AutomationCondition:
    """Run when an input's content changed, once all of them are there and at rest.

    spoken_for: inputs whose every change shows in another input too. They start nothing themselves: will_be_requested(), which makes
    the lower corner of a diamond wait, sees only parents that could run in the same run, and a vendor's cannot run with an asset of all.
    """
    return (_changed(spoken_for).since_last_handled() & _possible()).with_label("an input's content changed")


def nightly(cron: str, timezone: str) -> dg.AutomationCondition:
    """The same, held back until the next tick of the schedule; never when nothing changed.

    The tick counts only together with a change that it finds (else one quiet night would open the gate for the whole next day);
    once both have met, the request waits for its inputs to be at rest.
    """
    tonight: dg.AutomationCondition = AC.cron_tick_passed(cron, timezone) & _changed().since_last_handled()
    return (tonight.since_last_handled() & _possible()).with_label("changed since the last night")
