"""`tulu versions`: whether the code is what its versions claim."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tulu_pipeline.errors import TuluError

Accept = Annotated[bool, Parameter(help="write the lock: the code gives the same bytes, or its version was bumped.")]


def versions(*, accept: Accept = False) -> None:
    from flows.graph import every_artifact, versions_lock

    lock, artifacts = versions_lock(), every_artifact()
    if accept:
        lock.accept(artifacts)
        print(f"{len(lock.units)} entries in {lock.path}")
        return
    drifts = sorted({drift for artifact in artifacts if (drift := lock.drift(artifact))})
    if drifts:
        print("\n".join(drifts))
        raise TuluError(
            f"{len(drifts)} pieces of code changed and their versions did not",
            str(lock.path),
            "bump the version if bytes change, then `tulu versions --accept`",
        )
