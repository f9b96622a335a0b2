"""`tulu publish`: a finetuned model with its card, on a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import above, open_console, print_json, print_licenses, print_rows

if TYPE_CHECKING:
    from flows.publish import Done

Model = Annotated[str, Parameter(help="such as 'finetune[tiny+arithmetic]'; * and ? match.")]
To = Annotated[str, Parameter(help="owner/name on the hub at HF_ENDPOINT; HF_TOKEN may write there.")]
License = Annotated[str, Parameter(help="license that the model is published under, as an SPDX id.")]
Accepted = Annotated[
    tuple[str, ...],
    Parameter(name="--accept-license", help="of a part, that you have read and can meet; as often as needed."),
]
Card = Annotated[Path | None, Parameter(help="a model card of your own, in place of the one that is made.")]
Open = Annotated[bool, Parameter(name="--open", help="let everybody have the files; else whoever wants them asks.")]
Private = Annotated[bool, Parameter(help="leave the repository private.")]
DryRun = Annotated[bool, Parameter(help="say which files would go and how large they are; send nothing.")]


def publish(
    artifact: Model,
    *,
    to: To,
    experiment: options.GraphOf = "demo",
    license: License = "",  # noqa: A002 - the option is called so
    accepted: Accepted = (),
    card: Card = None,
    open_: Open = False,
    private: Private = False,
    dry_run: DryRun = False,
    store: options.Store = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.progress import Bars
    from flows.publish import Publishing
    from flows.publish import publish as bring

    asked = Publishing(
        artifact=artifact,
        to=to,
        experiment=experiment,
        license=license,
        accepted_licenses=accepted,
        card=card,
        gated=not open_,
        private=private,
        dry_run=dry_run,
        store=store,
    )
    with Bars(open_console(stderr=True)) as bars, above(bars.console):
        done = bring(asked, bars, lambda licenses: print_licenses(licenses, bars.console))
    if as_json:
        print_json(_json(done))
    elif done.published is None:
        print_rows([(path, f"{size_bytes:,} bytes") for path, size_bytes in done.sizes.items()])
        print(f"{done.artifact}: {len(done.sizes)} files, {sum(done.sizes.values()):,} bytes; nothing was sent")
    else:
        kept = len(done.sizes) - len(done.published.sent)
        state = f"{'private' if done.published.private else 'public'}, {'gated' if done.published.gated else 'open'}"
        print(f"{done.artifact}: {len(done.published.sent)} files sent, {kept} there before, {state}")
        print(f"{done.published.address}/tree/{done.published.commit}")


def _json(done: Done) -> dict[str, object]:
    facts: dict[str, object] = {"artifact": done.artifact, "key": done.key, "files": done.sizes}
    facts["licenses"] = done.licenses
    if found := done.published:
        facts |= {"address": found.address, "commit": found.commit, "sent": found.sent}
        facts |= {"gated": found.gated, "private": found.private}
    return facts
