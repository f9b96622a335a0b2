"""A finetuned artifact becomes a repository of the hub: looked up, checked, its licenses weighed, its card written."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flows.session import Request, Session, prepare, selected_names
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.stage import ReportProgress, no_progress
from tulu_pipeline.errors import BadInput

if TYPE_CHECKING:
    from tulu_pipeline.export.hub import Published
    from tulu_pipeline.export.model_card import ModelCard, Result

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """What is asked of a publication.

    Attributes:
        artifact: which one; a selection that names one finetuning.
        to: `owner/name` on the hub.
        experiment: whose graph.
        license: that the model is published under; "" for none.
        accepted_licenses: that whoever publishes has read and can meet.
        card: a card in place of the one that is made; None for that.
        gated: whoever wants the files has to ask.
        private: leave the repository private.
        dry_run: tell, send nothing.
        store: root of the store; None takes TULU_STORE or `./store`.
    """

    artifact: str
    to: str
    experiment: str = "demo"
    license: str = ""
    accepted_licenses: tuple[str, ...] = ()
    card: Path | None = None
    gated: bool = True
    private: bool = False
    dry_run: bool = False
    store: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was published, or would be.

    Attributes:
        artifact, key: which one.
        sizes: every file with its bytes.
        licenses: of the parts.
        published: what became of it; None for a dry run.
    """

    artifact: str
    key: str
    sizes: dict[str, int]
    licenses: dict[str, tuple[str, ...]]
    published: Published | None = None


def publish(
    asked: Publishing,
    progress: ReportProgress = no_progress,
    on_licenses: Callable[[tuple[str, ...]], None] = lambda licenses: None,
) -> Done:
    """Publish a finetuned checkpoint with its card.

    Args:
        asked: which, where to, how.
        progress: bytes sent.
        on_licenses: told the licenses of the parts before anything is sent.

    Raises:
        NotFound, BadInput: what is asked for cannot be published, or not under these licenses.
        TuluError: it is not there. Tampered: its bytes are not those that were published to the store.
        Unreachable, StageFailed: the hub.
    """
    from tulu_pipeline.export import hub
    from tulu_pipeline.export.model_card_text import render_model_card

    if not _REPO.fullmatch(asked.to):
        raise BadInput(f"`{asked.to}` names no repository of a hub", "--to", "write owner/name")
    session = prepare(Request(experiment=asked.experiment, store=asked.store))
    artifact, manifest = _finetuned(session, asked)
    card = _card(session, artifact, manifest, asked)
    _refuse_obstacles(card, asked)
    on_licenses(card.licenses_of_all())
    session.store.verify(manifest)
    publication = hub.Publication(
        repo=asked.to,
        folder=session.store.path(manifest),
        files=manifest.outputs,
        card=render_model_card(card) if asked.card is None else _read(asked.card),
        card_is_own=asked.card is not None,
        description={"artifact": artifact.name, "key": manifest.key, "digest": manifest.digest}
        | {"experiment": session.experiment.name, "identity": manifest.identity, "made": manifest.created},
        message=f"{artifact.name} {manifest.key[:12]}",
        body=f"key {manifest.key}\ndigest {manifest.digest}",
        gated=asked.gated,
        private=asked.private,
    )
    done = Done(artifact=artifact.name, key=manifest.key, sizes=publication.sizes(), licenses=card.licenses_by_part())
    if asked.dry_run:
        return done
    settings = session.ctx.settings
    published = hub.publish(publication, endpoint=settings.hub_endpoint, token=settings.hub_token, progress=progress)
    return replace(done, published=published)


def _finetuned(session: Session, asked: Publishing) -> tuple[Artifact, Manifest]:
    """The one finetuning that is asked for, with its manifest."""
    names = selected_names(session, asked.artifact)
    found = [name for name in names if session.plan.nodes[name].artifact.stage.name == "finetune"]
    where = f"experiment `{session.experiment.name}`"
    if not found:
        raise BadInput(
            f"`{asked.artifact}` is no finetuned model", where, "name one, such as 'finetune[model+mixture]'"
        )
    if len(found) > 1:
        raise BadInput(f"`{asked.artifact}` names {len(found)} models: {', '.join(found)}", where, "name one of them")
    node = session.plan.nodes[found[0]]
    if node.manifest is None or node.digest is None:
        raise session.lacks(found[0])
    return node.artifact, node.manifest


def _card(session: Session, artifact: Artifact, manifest: Manifest, asked: Publishing) -> ModelCard:
    """The card of the stage, with what only the whole graph tells: licenses of single rows, languages, scores."""
    from tasks.finetune import FinetuneParams, model_card

    params = artifact.params
    assert isinstance(params, FinetuneParams), "a finetuning has its params"
    tokens = [artifact.inputs[f"tokens_{index}"] for index in range(len(params.components))]
    card = model_card(
        artifact.name,
        manifest.key,
        params,
        tokens=[session.folder(each.name) for each in tokens],
        aux=session.store.path(manifest) / "aux",
        metrics=manifest.metrics,
        packages=manifest.provenance.get("packages", {}),
    )
    assert params.facts is not None, "the graph tells what a model is made of"
    stated = [part.license for part in params.facts.data]
    rows = [session.folder(each.inputs["conversations"].name) for each in tokens]
    return replace(
        card,
        stage_version=manifest.identity["stage_version"],
        digest=manifest.digest,
        licenses=tuple(_licenses(folder, license_) for folder, license_ in zip(rows, stated, strict=True)),
        languages=_languages(rows),
        results=_results(session, artifact),
        license=asked.license,
        address=asked.to,
    )


def _licenses(conversations: Path, stated: str) -> tuple[str, ...]:
    from tulu_pipeline.export.folder import licenses_in

    return licenses_in(conversations, stated)


def _languages(folders: list[Path]) -> tuple[str, ...]:
    """The languages that the conversations tell of themselves."""
    import pyarrow.parquet as pq

    from tulu_pipeline.chat.conversations import FILE

    columns = [pq.read_table(folder / FILE, columns=["language"]).column("language") for folder in folders]
    return tuple(sorted({code for column in columns for code in column.unique().to_pylist() if code}))


def _results(session: Session, artifact: Artifact) -> tuple[Result, ...]:
    """The scores of the model that are in the store."""
    from flows.catalog import find_benchmark
    from tulu_pipeline.export.model_card import Result

    results = []
    for name in session.plan.above(artifact.name):
        node = session.plan.nodes[name]
        if node.artifact.stage.name != "score" or node.manifest is None or node.digest is None:
            continue
        metrics = node.manifest.metrics
        found = metrics["scorers"][metrics["headline"]]
        if found["value"] is None:
            continue
        benchmark = find_benchmark(node.manifest.identity["params"]["benchmark"], session.experiment)
        judge = session.experiment.judges.get(metrics["metric"])
        judged_by = benchmark.setting(metrics["metric"]).judged_by(judge)
        results.append(
            Result(
                benchmark=f"{benchmark.title}, by {judged_by}" if judged_by else benchmark.title,
                setting=metrics["metric"],
                value=found["value"],
                half_width=(found["high"] - found["low"]) / 2,
                items=found["n"],
            )
        )
    return tuple(sorted(results, key=lambda result: (result.benchmark, result.setting)))


def _refuse_obstacles(card: ModelCard, asked: Publishing) -> None:
    from tulu_pipeline.export.terms import obstacles

    found = obstacles(card.licenses_by_part(), stated=asked.license, accepted=asked.accepted_licenses)
    if not found:
        return
    told = "; ".join(f"{each.license} (of {', '.join(each.parts)}): {each.why}" for each in found)
    accept = " ".join(f"--accept-license '{each.license}'" for each in found)
    raise BadInput(
        f"{len(found)} license{'s' if len(found) > 1 else ''} of its parts must be seen to: {told}",
        card.artifact,
        f"read them; where you can meet what they ask for, say so: {accept}",
    )


def _read(card: Path) -> str:
    try:
        return card.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadInput(f"the card cannot be read: {error}", str(card), "name a Markdown file with --card") from error
