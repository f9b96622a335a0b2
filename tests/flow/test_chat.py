"""`tulu chat` with a real engine on a real, tiny checkpoint: through a pipe for scripts, through a terminal."""

import json
import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest
from fakes.processes import TULU, environment, left_behind
from fakes.waiting import wait_for
from training_runs import write_tiny_model

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.inference.engine import EngineSettings, Finished, Request
from tulu_pipeline.tokens.encode import encode
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.tokens.tulu_template import write_tulu_template

pytestmark = pytest.mark.timeout(240)
CAP = 16


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("checkpoint"))
    write_tulu_template(folder)
    return folder


def ask(checkpoint: Path, lines: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [TULU, "chat", str(checkpoint), "--max-new-tokens", str(CAP), *words]
    return subprocess.run(command, input=lines, capture_output=True, text=True, env=environment(), check=False)


def test_each_line_of_a_script_is_a_round_asked_as_trained_until_the_context_is_full(checkpoint: Path) -> None:
    from tulu_pipeline.inference.transformers_engine import TransformersEngine

    questions = ["What is 2 + 2?", "And with </s> and <s>\nit?"]
    piped = f"{questions[0]}\nAnd with </s> and <s>\\\nit?\n/reset\n{questions[0]}\n{'word ' * 3000}\nnever asked\n"
    done = ask(checkpoint, piped, "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 3, done.stderr
    assert answers[2] == answers[0]
    # The first question that does not fit ends it: no answer is given to a conversation that was cut in secret.
    assert done.returncode == 2
    assert "the model takes 2048" in done.stderr
    assert "/reset" in done.stderr

    tokenizer = load_tokenizer(checkpoint)
    engine = TransformersEngine(EngineSettings(engine="transformers", model=str(checkpoint), dtype="float32"))
    said: list[Message] = []
    for question, answer in zip(questions, answers[:2], strict=True):
        said.append(Message("user", question))
        trained = encode(
            Conversation("d", "d_0", (*said, Message("assistant", "x"))), tokenizer, EncodeOptions(loss_span="eos")
        )
        ids = trained.input_ids.tolist()[:-2]  # without the answer's one token and its end mark
        (result,) = engine.submit([Request(request_id="0", prompt_ids=ids, max_new_tokens=CAP)])
        assert isinstance(result, Finished)
        assert answer == {
            "text": result.text,
            "finish_reason": result.finish_reason,
            "prompt_tokens": len(ids),
            "completion_tokens": result.completion_tokens,
        }
        said.append(Message("assistant", answer["text"]))


def test_what_is_drawn_follows_from_the_seed_and_a_plain_pipe_gets_one_line_each(checkpoint: Path) -> None:
    third, fourth = ask(checkpoint, "Hello\n/reset\nHello\n", "--temperature", "1", "--seed", "3").stdout.splitlines()
    assert third != fourth
    assert ask(checkpoint, "Hello\n", "--temperature", "1", "--seed", "4").stdout == fourth + "\n"


def test_a_chat_that_is_killed_leaves_no_process_behind(checkpoint: Path) -> None:
    command = [TULU, "chat", str(checkpoint), "--max-new-tokens", "1900", "--temperature", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment(), **pipes) as process:
        wait_for(lambda: any("talk_worker" in line for line in left_behind(checkpoint, 0)))
        process.kill()
    assert left_behind(checkpoint) == []


class Terminal:
    """The command in a pseudo-terminal."""

    def __init__(self, *words: str) -> None:
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(TULU, [TULU, *words], environment(TERM="dumb", COLUMNS="200"))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C, and again: one that comes just before the line is read is heard with the next key."""
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            self.type("\x03")
            if select.select([self.fd], [], [], 2.0)[0]:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def wait_for(self, text: str, seconds: float = 120.0) -> str:
        """What came up to `text`, and is not looked at again."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode(errors="replace")
                except OSError:  # closed
                    assert text in self.seen, self.seen
        before, _, self.seen = self.seen.partition(text)
        return before

    def code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal_shows_the_answer_as_it_comes_stops_it_and_ends_with_the_input(checkpoint: Path) -> None:
    terminal = Terminal("chat", str(checkpoint), "--max-new-tokens", "1900", "--temperature", "1")
    terminal.wait_for("> ")
    terminal.type("Count, please\n")
    terminal.wait_for("Count, please\r\n")
    deadline = time.monotonic() + 60
    while len(terminal.seen) < 40:  # some of 1,900 tokens
        assert time.monotonic() < deadline, terminal.seen
        terminal.seen += os.read(terminal.fd, 4096).decode(errors="replace")
    terminal.type("\x03")
    terminal.wait_for("(stopped; what was said so far belongs to the conversation)")
    terminal.wait_for("> ")
    terminal.type("/system Answer in one word.\n")
    terminal.wait_for("(begun anew with this system message)")
    terminal.wait_for("> ")
    terminal.type("word " * 700 + "\\\n")
    terminal.type("word " * 700 + "\\\n")
    terminal.type("word " * 700 + "\n")
    terminal.wait_for("stays as it was before the question")
    terminal.wait_for("> ")
    terminal.interrupt_until("(/quit or Ctrl-D ends)")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.code() == 0


def test_a_folder_without_a_checkpoint_and_a_number_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for words, what in (
        ((str(tmp_path),), "no `config.json`"),
        (("nowhere",), "no folder `nowhere`"),
        (("finetune[tiny+arithmetic]", "--store", str(tmp_path / "store")), "finetune[tiny+arithmetic] is not there"),
        (("finetune[tiny*]", "--store", str(tmp_path / "store")), "names 2 artifacts"),
    ):
        done = subprocess.run(
            [TULU, "chat", *words], input="", capture_output=True, text=True, env=environment(), cwd=tmp_path
        )
        assert what in done.stderr
        assert done.returncode in (1, 2)
