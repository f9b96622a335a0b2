"""What the arguments that several commands share are called and say of themselves; their order is the commands' own."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

Experiment = Annotated[str, Parameter(help="name, or path/to/file.py:CONSTANT.")]
GraphOf = Annotated[str, Parameter(help="whose graph.")]
Artifacts = Annotated[str, Parameter(help="such as finetune[tiny+arithmetic]; * and ? match.")]

Until = Annotated[str | None, Parameter(help="last stage to make, such as tokenize.")]
Only = Annotated[str | None, Parameter(help="make only this selection and what it needs.")]
Refresh = Annotated[tuple[str, ...], Parameter(help="make this selection anew though it is there.")]

MaxUsd = Annotated[
    str | None, Parameter(help="spend at most so much on servers that are paid; replies that are known cost nothing.")
]
Profile = Annotated[str | None, Parameter(help="execution profile: a name of deployments/profiles, or a TOML file.")]
Store = Annotated[str | None, Parameter(help="artifact store; else TULU_STORE, else ./store.")]
AsJson = Annotated[bool, Parameter(name="--json", help="print JSON for scripts.")]
