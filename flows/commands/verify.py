"""`tulu verify`: whether the store holds what was published."""

from __future__ import annotations

import sys

from flows.commands import options
from flows.terminal import print_error, print_json
from tulu_pipeline.errors import StoreError, Tampered, TuluError


def verify(*, store: options.Store = None, as_json: options.AsJson = False) -> None:
    from tulu_pipeline.artifacts.store import Store
    from tulu_pipeline.settings import read_settings

    opened = Store(read_settings(store).store)
    bad: list[dict[str, str]] = []
    good = 0

    def found(error: StoreError, name: str = "a manifest") -> None:
        bad.append({"name": name, "what": error.what, "where": error.where, "fix": error.fix})

    for manifest in opened.manifests(on_error=found):
        try:
            opened.verify(manifest)
            good += 1
        except Tampered as error:
            found(error, manifest.name)
    if as_json:
        print_json({"good": good, "bad": bad})
    else:
        for entry in bad:
            print_error(TuluError(f"{entry['name']}: {entry['what']}", entry["where"], entry["fix"]))
        print(f"{good} artifacts are as published, {len(bad)} are not")
    if bad:
        sys.exit(1)
