"""`tulu doctor`: what this machine can do, and whether its sandbox holds."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import open_console, print_json

AllAttempts = Annotated[bool, Parameter(name="--all", help="show every attempt to escape from the sandbox.")]


def doctor(*, all_attempts: AllAttempts = False, store: options.Store = None, as_json: options.AsJson = False) -> None:
    from flows.doctor import diagnose
    from flows.doctor_view import diagnosis_json, print_diagnosis
    from tulu_pipeline.settings import read_settings

    with open_console(stderr=True).status("looking around") as status:
        found = diagnose(
            read_settings(store),
            lambda done, total: status.update(f"{done} of {total} attempts to escape from the sandbox"),
        )
    if as_json:
        print_json(diagnosis_json(found))
    else:
        print_diagnosis(found, open_console(), all_attempts=all_attempts)
    sys.exit(found.exit_code)
