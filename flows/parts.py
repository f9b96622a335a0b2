"""Parts of the whole, each a flow of its own: up to the data, the checkpoints, the scores, the table.

Each makes whatever it needs below it, too; what is there is not made again.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.reproduce import reproduce


@flow(name="data", flow_run_name="data-{experiment}", persist_result=False)
def data(experiment: str, store: str | None = None, profile: str | None = None) -> dict[str, Any]:
    """Raw files to tokens and loss masks."""
    return reproduce(experiment, until="tokenize", store=store, profile=profile)


@flow(name="train", flow_run_name="train-{experiment}", persist_result=False)
def train(experiment: str, store: str | None = None, profile: str | None = None) -> dict[str, Any]:
    """Tokens to checkpoints."""
    return reproduce(experiment, until="finetune", store=store, profile=profile)


@flow(name="evaluate", flow_run_name="evaluate-{experiment}", persist_result=False)
def evaluate(experiment: str, store: str | None = None, profile: str | None = None) -> dict[str, Any]:
    """Checkpoints to scores."""
    return reproduce(experiment, until="score", store=store, profile=profile)


@flow(name="report", flow_run_name="report-{experiment}", persist_result=False)
def report(experiment: str, store: str | None = None, profile: str | None = None) -> dict[str, Any]:
    """Scores to the table, the figure and the report: the whole experiment."""
    return reproduce(experiment, until="tabulate", store=store, profile=profile)
