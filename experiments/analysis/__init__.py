"""Reads what is there, and writes numbers and figures: one file a question."""
