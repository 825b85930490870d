"""Reads what runs have left, and writes numbers and figures beside it: one file a question."""
