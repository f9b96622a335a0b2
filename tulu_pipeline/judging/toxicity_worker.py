"""The classifier's process: `python -m tulu_pipeline.judging.toxicity_worker job.json`.

Texts of like length go through together, the shorter ones padded and masked, in float32: the labels are those of one
text at a time. Where memory runs out a batch is halved. Every verdict is recorded as it comes; what a former process
recorded is not asked again. Events on stdout:

    {"event": "loaded", "seconds"}
    {"event": "progress", "name", "done", "total", "note"}       texts
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tulu_pipeline.artifacts.append_file import AppendFile, read_appended
from tulu_pipeline.artifacts.child_side import emit, end_with_parent
from tulu_pipeline.artifacts.json_lines import from_line, read_lines
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.judging.toxicity import Classified, ClassifierJob, Text
from tulu_pipeline.lacking_weights import refuse_lacking
from tulu_pipeline.memory import Batches, TooLarge

_SHOWN = 10


class Classifier:
    """A model for sequences and its tokenizer, loaded once."""

    def __init__(self, folder: str, *, max_length_tokens: int, gpu: bool) -> None:
        self._device = "cuda" if gpu else "cpu"
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        refuse_lacking(loaded["missing_keys"], folder, "classifier")
        self._model = model.to(self._device).eval()
        # RoBERTa numbers positions from behind the padding's id, so two of its 514 cannot be used.
        positions = int(model.config.max_position_embeddings)
        unused = int(model.config.pad_token_id) + 1 if model.config.model_type == "roberta" else 0
        self._most = min(max_length_tokens, positions - unused)
        self._batches: Batches[int, Any] | None = None

    @property
    def note(self) -> str:
        """What a person should know of how it runs; "" for nothing."""
        return self._batches.note if self._batches else ""

    def classify(self, texts: Sequence[Text], batch: int) -> Iterator[Classified]:
        """Verdicts, shortest texts first, `batch` at a time or as many as memory holds.

        Raises:
            StageFailed: a logit that is no number; or, after all others, texts that memory does not hold alone.
        """
        encoded = self._tokenizer([each.text for each in texts], return_attention_mask=False)["input_ids"]
        cut = self._tokenizer([each.text for each in texts], truncation=True, max_length=self._most)["input_ids"]
        order = sorted(range(len(texts)), key=lambda index: (len(cut[index]), texts[index].sha256))
        self._batches = Batches[int, Any](batch, lambda index: len(cut[index]))
        too_large: list[str] = []
        for together, logits_BL in self._batches.run(order, lambda some: self._logits([cut[index] for index in some])):
            if isinstance(logits_BL, TooLarge):
                too_large += (f"`{texts[index].sha256}`: {logits_BL.reason}" for index in together)
                continue
            for index, logits_L in zip(together, logits_BL.tolist(), strict=True):
                if not all(map(_is_number, logits_L)):
                    raise StageFailed(
                        f"the classifier's logits are {logits_L}", texts[index].sha256, "look at the classifier's files"
                    )
                yield Classified(
                    sha256=texts[index].sha256,
                    logits=tuple(logits_L),
                    label=logits_L.index(max(logits_L)),
                    tokens=len(encoded[index]),
                    cut=len(encoded[index]) > len(cut[index]),
                )
        if too_large:
            more = f"\nand {len(too_large) - _SHOWN} more" if len(too_large) > _SHOWN else ""
            raise StageFailed(
                f"{len(too_large)} texts were not classified\n" + "\n".join(too_large[:_SHOWN]) + more,
                "the classifier",
                "free some memory and run the same command again: the others are kept",
            )

    def _logits(self, ids: list[list[int]]) -> Any:
        padded = self._tokenizer.pad({"input_ids": ids}, padding="longest", return_tensors="pt").to(self._device)
        with torch.inference_mode():
            return self._model(input_ids=padded["input_ids"], attention_mask=padded["attention_mask"]).logits.cpu()


def run(job: ClassifierJob) -> None:
    """Classify what is not recorded yet."""
    texts = list(read_lines(job.texts, Text))
    started = time.monotonic()
    classifier = Classifier(job.model, max_length_tokens=job.max_length_tokens, gpu=job.gpu)
    emit({"event": "loaded", "seconds": round(time.monotonic() - started, 2)})
    known = {record.sha256 for record in read_appended(job.records, Classified)}
    with AppendFile(job.records, Classified) as records:
        done = len(texts) - len(still := [text for text in texts if text.sha256 not in known])
        for verdict in classifier.classify(still, job.batch):
            records.add(verdict)
            done += 1
            if done % job.batch == 0 or done == len(texts):
                emit(
                    {"event": "progress", "name": job.name, "done": done, "total": len(texts), "note": classifier.note}
                )


def _is_number(value: float) -> bool:
    return value == value and abs(value) != float("inf")


def main() -> None:
    """Read the job and run it."""
    end_with_parent()
    path = Path(sys.argv[1])
    run(from_line(path.read_bytes(), ClassifierJob, str(path)))


if __name__ == "__main__":
    main()
