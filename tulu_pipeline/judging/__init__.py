"""Judges: raw replies about completions."""
