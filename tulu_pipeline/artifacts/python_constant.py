"""What a constant of a Python file holds, read without running the file: some data was published in no other form."""

from __future__ import annotations

import ast
import json

from tulu_pipeline.errors import BadInput


def constant_bytes(module: bytes, name: str, where: str) -> bytes:
    """The value of the constant `name`, assigned at the top of the module, as the bytes of a file.

    Args:
        module: the Python file.
        name: of the constant; its value is a text or a list, written out.
        where: the file's address, for errors.

    Returns:
        A text as it stands, in UTF-8; a list as JSON, one element a line.

    Raises:
        BadInput: no Python, no such constant, or one that is computed.
    """
    fix = f"pin a commit of the file that has `{name} = …` with its value written out"
    try:
        statements = ast.parse(module).body
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"not a Python file: {error}", where, fix) from error
    values = [
        statement.value
        for statement in statements
        if isinstance(statement, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
    ]
    if not values:
        raise BadInput(f"no constant `{name}`", where, fix)
    try:
        value = ast.literal_eval(values[-1])
    except ValueError as error:
        raise BadInput(f"the value of `{name}` is computed", f"{where}:{values[-1].lineno}", fix) from error
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return "".join(json.dumps(element, ensure_ascii=False) + "\n" for element in value).encode()
    raise BadInput(f"`{name}` is a {type(value).__name__}", f"{where}:{values[-1].lineno}", fix)
