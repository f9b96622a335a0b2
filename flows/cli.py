"""The `tulu` command: which commands there are, and how each ends. stdout is data, stderr is logs and progress."""

from __future__ import annotations

import sys

from cyclopts import App, CycloptsError, Parameter

from flows.terminal import print_error, show_logs
from tulu_pipeline.artifacts.interrupts import Terminated, listen
from tulu_pipeline.errors import BadInput, TuluError

# Name: what its help says first. The command is the function of that name in `flows/commands/<name>.py`, which is
# not loaded before it is called.
COMMANDS = {
    "list": "List what there is, by name.",
    "show": "Show what a name stands for: sources, license, citation, settings; of data also counts and licenses.",
    "publish": "Bring a finetuned model with its card to a hub; gated, and checked before and after.",
    "export": "Write a mixture as Parquet that `datasets` opens; what is missing of it is made.",
    "plan": "Say what would run and why; runs nothing.",
    "run": "Make what is missing or stale, and print the table.",
    "join": "Let this machine take part in the finetunings of a run on another (profiles with the launcher torchrun).",
    "chat": "Talk with a tuned checkpoint, asked exactly as it was taught.",
    "score": "Score completions of your own as the project's are scored.",
    "compare": "Compare two models item by item: differences, tests, and what the items could show.",
    "tokens": "Show one conversation of a dataset token by token: which text each id stands for, and what is learned.",
    "why": "Say what differs from the last build, down to the root cause.",
    "path": "Print the folder of an artifact.",
    "doctor": "Say what this machine can do and what it lacks; programs try to escape from the sandbox.",
    "verify": "Hash every artifact of the store again and name those that changed.",
    "versions": "Compare the code with the versions it claims; exit 1 on drift.",
}

app = App(
    name="tulu",
    help="Which instruction data helps which skill, on which base model? Only what changed reruns.",
    help_epilogue="Exit codes: 0 done, 1 failed, 2 usage, 4 something missing on this machine.",
    version_flags=[],
    suppress_keyboard_interrupt=False,  # `main` says what became of the run
    default_parameter=Parameter(negative="", show_default=False),
)
for _name, _help in COMMANDS.items():
    app.command(f"flows.commands.{_name}:{_name}", name=_name, help=_help)


def main() -> None:
    """Run the command; errors print what, where and fix, and set the exit code."""
    words = sys.argv[1:]
    debug = "--debug" in words
    show_logs(debug=debug)
    listen()
    try:
        app([word for word in words if word != "--debug"], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print_error(
            BadInput(_first_line(error), f"tulu {' '.join(words)}", "see `tulu --help`, or `tulu COMMAND --help`")
        )
        sys.exit(BadInput.exit_code)
    except TuluError as error:
        if debug:
            raise
        print_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as error:
        print("interrupted; the same command goes on where this one stopped", file=sys.stderr)
        sys.exit(143 if isinstance(error, Terminated) else 130)
    except BrokenPipeError:  # `tulu plan … | head`
        sys.stderr.close()


def _first_line(error: CycloptsError) -> str:
    return str(error).strip().splitlines()[0]
