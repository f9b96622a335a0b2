"""Folders as finetunings leave them: the record of two trainings, one of them as an older release wrote it."""

import json
import math
from dataclasses import asdict
from pathlib import Path

from fakes.sample_results import HOSTILE

from tulu_pipeline.training.tracking.record import HeldOutRecord, Recorder, StepRecord
from tulu_pipeline.training.tracking.summary import TRAINING_FILE, record_metrics

STEPS = 800


def write_trainings(folder: Path) -> dict[str, Path | None]:
    """Inputs of a tabulate job for the sample rows: a whole record, an old one, and one that could not be made."""
    whole, old = folder / "whole", folder / "old"
    recorder = Recorder(whole / "aux", 0, looks=True)
    steps, looks = [], []
    for number in range(STEPS + 1):
        if number:
            steps.append(_step(number))
            recorder.add(steps[-1])
        if number % 100 == 0:
            looks.append(
                HeldOutRecord(step=number, loss=_loss(number) + 0.2, conversations=8, supervised_tokens=90, seconds=0.1)
            )
            recorder.add(looks[-1])
    recorder.close()
    told = {
        "schema_version": 1,
        **record_metrics(steps, looks),
        "ranks": 4,
        "nodes": 2,
        "device": "AMD EPYC",
        "notes": [f"resumed after step 20 {HOSTILE}"],
        "tracked_at": ["https://tracker.example/runs/1", "javascript:document.title='pwned'"],
    }
    (whole / "aux" / TRAINING_FILE).write_text(json.dumps(told))
    old.mkdir()
    (old / "aux").mkdir()
    with open(old / "aux" / "steps.jsonl", "w") as lines:
        for number in range(1, 31):
            values = asdict(_step(number))
            known = list(values)[: list(values).index("seconds") + 1]
            lines.write(json.dumps({name: values[name] for name in known}) + "\n")
    return {"training:tiny+arithmetic": whole, "training:tiny+facts": old, "training:tiny+both": None}


def _loss(step: int) -> float:
    return 0.3 + 7 * math.exp(-step / 90)


def _step(number: int) -> StepRecord:
    return StepRecord(
        step=number,
        loss=_loss(number) + 0.2 * math.sin(number) ** 2,
        learning_rate=4e-3 * min(number / 30, 1 - number / STEPS),
        grad_norm=1.0 + math.cos(number) ** 2,
        conversations=16,
        tokens=1600,
        supervised_tokens=700,
        computed_tokens=1600,
        seconds=0.1,
        data_seconds=0.0001,
        memory_bytes=3 * 2**29,
        epoch=number / 200,
        tokens_so_far=1600 * number,
    )
