"""Dagster wiring: one file per stage, in pipeline order. Metadata and checks only; the work is done further down the house."""
