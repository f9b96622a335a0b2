"""One conversation of a dataset token by token: what is missing is made, then its tokens are shown."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.catalog import DATASETS, EXPERIMENTS, find_dataset, find_experiment, find_model, find_tokenizer, in_file
from flows.graph import conversations_graph
from flows.session import Request, make_all, prepare_graph
from tulu_pipeline.artifacts.stage import AUX, ReportProgress, no_progress
from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.errors import BadInput, NotFound, unknown_name
from tulu_pipeline.registry import Registry, load_file
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.experiment import Experiment

if TYPE_CHECKING:
    from tulu_pipeline.chat.conversations import ConversationFile
    from tulu_pipeline.chat.schema import Conversation
    from tulu_pipeline.specs.model import PretrainedTokenizer
    from tulu_pipeline.specs.recipe import Recipe
    from tulu_pipeline.tokens.token_view import TokenView

DEFAULT_MODEL = "tiny-10m"  # its tokenizer is made here: nothing has to be downloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A conversation and its tokens.

    Attributes:
        conversation: as normalized.
        row: its place among the kept conversations, from 0. rows: how many there are.
        view: its tokens, cut as in training.
        tokenizer: name.
        max_length_tokens: where training cuts.
        license: the row's own, else the dataset's.
        dropped: why training would leave it out; "" where it would not.
    """

    conversation: Conversation
    row: int
    rows: int
    view: TokenView
    tokenizer: str
    max_length_tokens: int
    license: str
    dropped: str


def show_tokens(
    name: str,
    *,
    row: str = "0",
    tokenizer: str | None = None,
    experiment: str | None = None,
    max_length_tokens: int | None = None,
    store: str | None = None,
    profile: str | None = None,
    progress: ReportProgress = no_progress,
) -> Shown:
    """One conversation of a dataset as training would see it.

    Args:
        name: a dataset, with its variant, or `path/to/file.py:CONSTANT`.
        row: place among the kept conversations, from 0; or the conversation's id.
        tokenizer: its name, a model's, or a folder; None takes the experiment's first model's, without an experiment
            that of `tiny-10m`.
        experiment: whose recipe, tokenizer and own datasets count; None takes the paper's recipe, and for a dataset
            that only an experiment has, that experiment.
        max_length_tokens: cut there instead of where the recipe says.
        store: root of the store; None takes TULU_STORE or `./store`.
        profile: execution profile.
        progress: how far it is.

    Raises:
        NotFound: no such dataset, tokenizer, experiment or id. BadInput: no such row, or the row was dropped.
        TuluError: the conversations cannot be made; the root cause.
    """
    whose, dataset = _find(name, find_experiment(experiment) if experiment else None)
    spec = _tokenizer(tokenizer, whose)
    if whose is None:
        whose = _of_dataset(dataset, spec)
    session = prepare_graph(
        Request(experiment=whose.name, store=store, profile=profile),
        whose,
        conversations_graph(whose, dataset, spec),
        progress,
    )
    make_all(session)

    from tulu_pipeline.chat.conversations import ConversationFile

    folder = session.folder(f"normalize[{dataset.name}]")
    conversations = ConversationFile(folder)
    place = _place(conversations, row, folder, dataset)
    conversation = next(islice(conversations, place, None))
    recipe = whose.recipe
    if max_length_tokens is not None:
        recipe = dataclasses.replace(recipe, max_length_tokens=max_length_tokens)
    view, dropped = _view(conversation, session.folder(f"download[{spec.name}-tokenizer]"), spec, recipe)
    return Shown(
        conversation=conversation,
        row=place,
        rows=len(conversations),
        view=view,
        tokenizer=spec.name,
        max_length_tokens=recipe.max_length_tokens,
        license=conversation.license or dataset.license,
        dropped=dropped,
    )


def _find(name: str, experiment: Experiment | None) -> tuple[Experiment | None, Dataset]:
    """The dataset, and the experiment that it is seen in."""
    if place := in_file(name):
        path, constant = place
        registry = Registry("dataset", DATASETS.package, constant or DATASETS.constant, Dataset)
        return experiment, registry.from_module(load_file(path), None)
    try:
        return experiment, find_dataset(name, experiment)
    except NotFound:
        if experiment is not None:
            raise unknown_name(
                "dataset", name, [*DATASETS.names(), *(own.name for own in experiment.datasets)], experiment.name
            ) from None
        for each in EXPERIMENTS.all():
            for own in each.datasets:
                if own.name == name:
                    return each, own
        raise


def _tokenizer(name: str | None, experiment: Experiment | None) -> PretrainedTokenizer:
    if name is not None:
        return find_tokenizer(name)
    if experiment is not None and experiment.models:
        return experiment.models[0].tokenizer
    if experiment is not None and experiment.data_tokenizer is not None:
        return experiment.data_tokenizer
    return find_model(DEFAULT_MODEL).tokenizer


def _of_dataset(dataset: Dataset, tokenizer: PretrainedTokenizer) -> Experiment:
    """An experiment that only normalizes a dataset."""
    return Experiment(
        name=f"tokens-{dataset.name}",
        title=f"The tokens of {dataset.title}",
        hypothesis="",
        models=(),
        mixtures=(),
        benchmarks={},
        data_tokenizer=tokenizer,
        datasets=(dataset,),
    )


def _place(conversations: ConversationFile, row: str, folder: Path, dataset: Dataset) -> int:
    """The place of a row that is named by its number or its id."""
    rows = len(conversations)
    if row.isascii() and row.isdigit():
        if int(row) < rows:
            return int(row)
        raise BadInput(
            f"no row {int(row):,}: `{dataset.name}` has {rows:,} conversations",
            f"--row {row}",
            f"write 0 to {rows - 1}, or an id",
        )
    for place, known in enumerate(conversations.ids()):
        if known == row:
            return place
    plain = dataset.name.partition(":")[0]
    for dropped in _dropped(folder):
        if row in (dropped["row_id"], f"{plain}_{dropped['row_id']}"):
            raise BadInput(
                f"row `{row}` of `{dataset.name}` became no conversation: {dropped['reason']}",
                str(dropped["where"]),
                "mend the row, or look at another one",
            )
    raise unknown_name("row", row, islice(conversations.ids(), 10_000), dataset.name)


def _dropped(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / AUX / "dropped.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _view(
    conversation: Conversation, tokenizer_folder: Path, spec: PretrainedTokenizer, recipe: Recipe
) -> tuple[TokenView, str]:
    """The tokens, and why training would leave the conversation out."""
    from tulu_pipeline.tokens.token_view import load_viewer
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    mode = spec.mode if recipe.template == "tulu" else None
    tokenizer = load_tokenizer(tokenizer_folder, tokenizer_mode=mode, special_in_text=recipe.special_in_text)
    options = EncodeOptions(max_length_tokens=recipe.max_length_tokens, loss_span=recipe.loss_span)
    view = load_viewer(tokenizer_folder, tokenizer, options, recipe.template)(conversation)
    if view.refused or view.supervised:
        return view, view.refused
    return view, options.nothing_learned
