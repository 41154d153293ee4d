"""Scores of answers against gold: typed outcomes, rows by assignment, intervals, the gate, the report. Knows no model and no store."""
