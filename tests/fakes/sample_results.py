"""Score and generate folders as their stages leave them: two base models, four metrics, realistic and hostile texts."""

import json
import math
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tulu_pipeline.reporting.table import TableColumn, TableRow
from tulu_pipeline.specs.benchmark import Completion, ItemScore

HOSTILE = (
    "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    "<svg onload=\"document.title='pwned'\"> `${document.title='pwned'}` \\\"); document.title='pwned'; (\" "
    "\u2028 \u2029 \0"
)

# 100 KB with what changes the direction of text, bells and escapes.
LONG = "\u202e\u2067right to left \x07\x1b[31m \u200f <b>" + "عربى and English " * 6_000 + "the end"

ROWS = (
    TableRow(name="tiny", label="untuned", base_model="tiny", untuned=True),
    TableRow(name="tiny+arithmetic", label="arithmetic", base_model="tiny", mixture="arithmetic"),
    TableRow(name="tiny+facts", label="facts", base_model="tiny", mixture="facts"),
    TableRow(name="tiny+both", label="arithmetic + facts", base_model="tiny", mixture="both"),
)
COLUMNS = (
    TableColumn(metric="mmlu_0shot", title="MMLU 0-shot", benchmark="mmlu"),
    TableColumn(metric="gsm_cot", title="GSM CoT", benchmark="gsm"),
    TableColumn(metric="tydiqa_gp", title="TyDiQA GP", benchmark="tydiqa"),
    TableColumn(metric="alpaca_eval", title="AlpacaEval", tuned_only=True, benchmark="alpaca_eval"),
)
_ABILITY = {
    ("tiny", "mmlu_0shot"): 0.3, ("tiny", "gsm_cot"): 0.08, ("tiny", "tydiqa_gp"): 0.35,
    ("tiny+arithmetic", "mmlu_0shot"): 0.26, ("tiny+arithmetic", "gsm_cot"): 0.72,
    ("tiny+arithmetic", "tydiqa_gp"): 0.1, ("tiny+arithmetic", "alpaca_eval"): 0.2,
    ("tiny+facts", "mmlu_0shot"): 0.85, ("tiny+facts", "gsm_cot"): 0.02,
    ("tiny+facts", "tydiqa_gp"): 0.37, ("tiny+facts", "alpaca_eval"): 0.45,
    ("tiny+both", "mmlu_0shot"): 0.6, ("tiny+both", "gsm_cot"): 0.55,
    ("tiny+both", "alpaca_eval"): 0.5,
}  # fmt: skip
MISSING = "tiny+both/tydiqa_gp"
_SUBJECTS = ("abstract_algebra", "astronomy", "world_religions", "virology", "us_foreign_policy")
_SHOTS = "".join(
    f"Question: Mia has {a} shells and finds {b} more. How many shells has she now?\nAnswer: She starts with {a}. "
    f"{a} + {b} = {a + b}. So the answer is {a + b}.\n\n"
    for a, b in ((3, 4), (5, 2), (7, 1), (6, 6), (8, 3), (9, 9), (4, 2), (1, 5))
)


def write_results(folder: Path, items: int = 50) -> dict[str, Path | None]:
    """Inputs of a tabulate job, by the names the stage knows; `MISSING` is None."""
    inputs: dict[str, Path | None] = {f"score:{MISSING}": None, f"completions:{MISSING}": None}
    for (row, metric), ability in _ABILITY.items():
        draw = random.Random(f"{row}/{metric}")
        made = [_MAKERS[metric](index, draw, ability, row != "tiny") for index in range(items)]
        scores, completions = folder / row / metric / "score", folder / row / metric / "generate"
        write_score([score for score, _ in made], metric, scores)
        write_completions([completion for _, completion in made], completions)
        inputs[f"score:{row}/{metric}"], inputs[f"completions:{row}/{metric}"] = scores, completions
        if metric == "alpaca_eval":
            replies = folder / row / metric / "judge"
            write_replies([score for score, _ in made], replies)
            inputs[f"replies:{row}/{metric}"] = replies
    return inputs


def write_score(scores: list[ItemScore], metric: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines([asdict(score) for score in scores], folder / "items.jsonl")
    scorers = {name: _estimate([score.scores[name] for score in scores]) for name in scores[0].scores}
    metrics = {
        "schema_version": 1, "metric": metric, "headline": "paper", "n": len(scores), "scorers": scorers,
        "flags": dict(Counter(flag for score in scores for flag in score.flags)), "groups": _groups(scores),
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))


def _groups(scores: list[ItemScore]) -> dict:
    of_group = {}
    for score in scores:
        if score.group:
            of_group.setdefault(score.group, []).append(score.scores["paper"])
    return {group: _estimate(values) for group, values in sorted(of_group.items())}


def write_replies(scores: list[ItemScore], folder: Path) -> None:
    """What a judge said in both orders; one of its replies is hostile."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for index, score in enumerate(scores):
        text = HOSTILE if index == 3 else "[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"
        said = [{"model_first": first, "kind": "chat", "text": text, "model": "judge-1"} for first in (True, False)]
        reply = {"preference": 1 + score.scores["paper"], "annotator": "sample_judge", "said": said}
        records.append({"item_id": score.item_id, "reply": reply})
    _write_lines(records, folder / "replies.jsonl")


def write_completions(completions: list[Completion], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines([asdict(completion) for completion in completions], folder / "completions.jsonl")


def _write_lines(records: list[dict], path: Path) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _estimate(values: list[float | None]) -> dict:
    """Mean with Wilson's interval, computed by hand so that the sample needs no scorer."""
    defined = [value for value in values if value is not None]
    if not defined:
        return {"value": None, "n": 0, "standard_error": None, "low": None, "high": None, "method": "undefined"}
    n, p, z = len(defined), math.fsum(defined) / len(defined), 1.959964
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    error = math.sqrt(p * (1 - p) / n)
    return {
        "value": p, "n": n, "standard_error": error, "low": middle - half, "high": middle + half, "method": "wilson",
    }  # fmt: skip


def _mmlu(index: int, draw: random.Random, ability: float, tuned: bool) -> tuple[ItemScore, Completion]:
    subject = _SUBJECTS[index % len(_SUBJECTS)]
    gold = "ABCD"[(index * 7) % 4]
    answer = gold if draw.random() < ability else draw.choice([letter for letter in "ABCD" if letter != gold])
    weights = {letter: draw.random() + (2.2 if letter == answer else 0) for letter in "ABCD"}
    total = sum(weights.values()) * 1.08
    head = f"The following are multiple choice questions (with answers) about  {subject.replace('_', ' ')}.\n\n"
    question = f"Which of these is the {index}th fact?\nA. Ammonite\nB. Basalt\nC. Chalk\nD. Dolomite\nAnswer:"
    completion = Completion(
        item_id=f"{subject}/{index}", prompt=_chat(head + question, " The answer is:") if tuned else head + question,
        prompt_tokens=71, choice_logprobs={letter: math.log(weight / total) for letter, weight in weights.items()},
    )  # fmt: skip
    right = float(answer == gold)
    score = ItemScore(
        item_id=completion.item_id, group=subject, scores={"paper": right, "strict": right},
        extracted={"paper": answer, "strict": answer}, gold=gold,
    )  # fmt: skip
    return score, completion


def _gsm(index: int, draw: random.Random, ability: float, tuned: bool) -> tuple[ItemScore, Completion]:
    a, b = 11 + index, 3 + index % 9
    right = draw.random() < ability
    answer = str(a + b if right else a + b + draw.randint(1, 9))
    text = (
        f"There are {a} apples in the basket. Noah brings {b} more, so {a} + {b} = {answer}. So the answer is {answer}."
    )
    flags: tuple[str, ...] = ()
    if index == 3:
        text, answer, right, flags = HOSTILE, HOSTILE, False, ("no_answer_found",)
    elif index == 7:
        text, answer, right, flags = "", "", False, ("empty", "no_answer_found")
    elif index % 13 == 12:
        text, answer, right, flags = "a basket of a basket of " * 30, "", False, ("no_answer_found", "truncated")
    elif index % 6 == 5 and right:
        text = text[:-1] + ".00."
    question = f"Question: A basket holds {a} apples. Noah brings {b} more. How many?"
    prompt = f"Answer the following questions.\n\n{_SHOTS}{question}"
    completion = Completion(
        item_id=f"gsm/{index}", texts=(text,), finish_reasons=("length" if "truncated" in flags else "stop",),
        completion_tokens=(len(text.split()),), prompt=_chat(prompt, "Answer:") if tuned else prompt + "\nAnswer:",
        prompt_tokens=412,
    )  # fmt: skip
    strict = right or (index % 4 == 1 and index not in (3, 7))
    score = ItemScore(
        item_id=completion.item_id, group="", scores={"paper": float(right), "strict": float(strict)},
        extracted={"paper": answer, "strict": "" if flags else answer}, flags=flags, gold=str(a + b),
    )  # fmt: skip
    return score, completion


def _tydiqa(index: int, draw: random.Random, ability: float, tuned: bool) -> tuple[ItemScore, Completion]:
    language, passage, gold, near = (
        ("arabic", "يقع نهر النيل في أفريقيا ويبلغ طوله نحو 6650 كيلومترا.", "6650 كيلومترا", "نحو 6650"),
        ("japanese", "富士山の標高は三七七六メートルである。", "三七七六メートル", "三七七六"),
        ("russian", "Байкал — самое глубокое озеро мира, 1642 метра.", "1642 метра", "1642"),
        ("english", "The Thames flows through southern England.", "southern England", "England"),
    )[index % 4]
    text, f1 = draw.choice([(gold, 1.0), (near, 0.667)]) if draw.random() < ability else ("I do not know", 0.0)
    prompt = f"Answer the question from the passage.\n\nPassage: {passage}\nQuestion: {language} {index}?"
    completion = Completion(
        item_id=f"{language}-{index}", texts=(text,), finish_reasons=("stop",), completion_tokens=(5,),
        prompt=_chat(prompt, "Answer:") if tuned else prompt + "\nAnswer:", prompt_tokens=64,
    )  # fmt: skip
    score = ItemScore(
        item_id=completion.item_id, group=language, scores={"paper": f1}, extracted={"paper": text}, gold=gold
    )
    return score, completion


def _alpaca(index: int, draw: random.Random, ability: float, tuned: bool) -> tuple[ItemScore, Completion]:
    win = draw.choice((0.0, 0.5)) if draw.random() > ability else 1.0
    words = draw.sample(
        ("camel", "dune", "oasis", "caravan", "well", "spice", "tent", "star", "sand", "salt", "bell"), 9
    )
    text = f"Here is a short answer about {words[0]}:\n\n" + "\n".join(f"- {word} and {words[-1]}" for word in words)
    if index == 5:
        text = LONG
    completion = Completion(
        item_id=f"alpaca_eval/{index}", texts=(text,), finish_reasons=("stop",), completion_tokens=(41,),
        prompt=_chat(f"Write {index} lines about the desert.", ""), prompt_tokens=17,
    )  # fmt: skip
    verdict = {0.0: "lose", 0.5: "tie", 1.0: "win"}[win]
    score = ItemScore(
        item_id=completion.item_id, group="", scores={"paper": win, "strict": win},
        extracted={"paper": verdict, "strict": verdict},
        flags=(*(("tie",) if verdict == "tie" else ()), *(("judge_flipped",) if index % 20 == 6 else ())),
        gold="The desert is wide.\nIts nights are cold.",
    )  # fmt: skip
    return score, completion


def _chat(prompt: str, cue: str) -> str:
    return f"<|user|>\n{prompt}\n<|assistant|>\n{cue}"


_MAKERS = {"mmlu_0shot": _mmlu, "gsm_cot": _gsm, "tydiqa_gp": _tydiqa, "alpaca_eval": _alpaca}
