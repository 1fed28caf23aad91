"""Intervals, comparisons and self-checks over a record; no tensor library is ever imported here."""
