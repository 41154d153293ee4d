"""A training plan for people: Markdown for the terminal and the Dagster UI."""

from __future__ import annotations

from extraction_assets.training.plan import MachineEstimate, SplitLengths, TrainingPlan

_GIB = 2**30


def plan_card(plan: TrainingPlan, held_against: MachineEstimate | None = None) -> str:
    """Examples, lengths and steps; with `held_against` also memory and time on that machine."""
    train, packing = plan.train, plan.packing
    rows = [
        ("train examples", f"{train.examples:,}" + _left_out(train)),
        ("val examples", f"{plan.val.examples:,}" if plan.val else "none"),
        ("tokens an epoch", f"{train.tokens:,} ({train.visual_tokens:,} visual, {train.response_tokens:,} answered)"),
        ("longest example", f"{train.longest:,} tokens"),
        ("target tokens", f"median {train.target_p50}, 95 % {train.target_p95}, longest {train.target_max}"),
        ("method", f"{plan.settings.method}, r {plan.settings.r}, {plan.settings.targets}: {plan.adapter_parameters:,} parameters train"),
        ("steps", f"{plan.steps:,} of {plan.effective_batch} examples, {plan.epochs} epochs"),
        ("packs a step", f"{packing.packs_per_step:.1f} of {packing.room:,} tokens ({packing.setting}), {packing.full:.0%} full"),
        ("compute", f"{plan.flops / 1e12:,.1f} TFLOP"),
    ]
    if held_against:
        machine = held_against.machine
        rows += [
            ("machine", f"{machine.name}, {machine.memory / _GIB:.1f} GiB"),
            ("memory at the peak", f"{held_against.memory.peak / _GIB:.2f} GiB: {'fits' if held_against.fits else 'does not fit'}"),
            ("time", f"about {held_against.hours:.2f} h at {machine.share:.0%} of the machine's peak speed"),
        ]
    lines = ["| training plan | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines + ([f"\n{held_against.advice}"] if held_against and held_against.advice else []))


def _left_out(lengths: SplitLengths) -> str:
    counts = {"over length": len(lengths.over_length), "unwritable": len(lengths.unwritable)}
    told = [f"{count} {what}" for what, count in counts.items() if count]
    return f" (left out: {', '.join(told)})" if told else ""
