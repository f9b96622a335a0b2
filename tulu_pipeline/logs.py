"""Logs go to stderr: one line at the start and the end of a stage. stdout is for data."""

from __future__ import annotations

import logging

PACKAGES = ("tulu_pipeline", "tasks", "flows")


def configure(level: int, handler: logging.Handler) -> None:
    """Send this project's log lines to `handler` and nowhere else, and leave other libraries' loggers alone."""
    handler.setFormatter(logging.Formatter("%(message)s"))
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(level)
        logger.handlers = [handler]
        logger.propagate = False
