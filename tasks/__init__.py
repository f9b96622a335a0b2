"""Stages: one file each, its parameters and what it calls."""
