"""The transformers engine: the reference that vLLM is compared with, and the way out where vLLM cannot load.

Requests of equal length run together, so nothing is ever padded: left padding changed LLaMA's scores in the
transformers releases of 2023, and with no padding there is nothing to get wrong.

With weights in 8 bits (LLM.int8 of bitsandbytes, as the original has them) requests run one by one: activations are
rounded to 8 bits too, and the columns that are not are looked for in the whole batch, so that an answer would depend on
its neighbors.

Where memory runs out a batch is halved; what each request gets does not change by that.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from tulu_pipeline.inference.engine import EngineSettings, Failed, Finished, Request, chosen
from tulu_pipeline.lacking_weights import refuse_lacking
from tulu_pipeline.memory import Batches, TooLarge

_LOOK_AHEAD = 256
_BATCH = 16


class TransformersEngine:
    """A model in transformers, on the GPU where there is one."""

    def __init__(self, settings: EngineSettings) -> None:
        self._device = torch.device("cuda", 0) if settings.gpu else torch.device("cpu")
        self._tokenizer = AutoTokenizer.from_pretrained(settings.model)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            settings.model, dtype=getattr(torch, settings.dtype), output_loading_info=True, **self._how(settings)
        )
        refuse_lacking(loaded["missing_keys"], settings.model)
        self._model = (model if settings.quantization == "int8" else model.to(self._device)).eval()
        self._batches: Batches[Request, list[Finished | Failed]] = Batches(
            1 if settings.quantization == "int8" else _BATCH, _tokens
        )

    def _how(self, settings: EngineSettings) -> dict[str, Any]:
        if settings.quantization == "none":
            return {}
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True), "device_map": {"": self._device}}

    @property
    def context_tokens(self) -> int:
        return int(self._model.config.max_position_embeddings)

    @property
    def note(self) -> str:
        return self._batches.note

    def submit(self, requests: Iterable[Request]) -> Iterator[Finished | Failed]:
        waiting = iter(requests)
        while ahead := list(itertools.islice(waiting, _LOOK_AHEAD)):
            ahead.sort(key=_alike)
            for _, alike in itertools.groupby(ahead, key=_alike):
                for batch, results in self._batches.run(alike, self._answer):
                    if isinstance(results, TooLarge):
                        yield from (Failed(request.request_id, results.reason) for request in batch)
                    else:
                        yield from results

    def _answer(self, batch: Sequence[Request]) -> list[Finished | Failed]:
        first = batch[0]
        if _tokens(first) > self.context_tokens:
            reason = (
                f"{len(first.prompt_ids)} prompt and {first.max_new_tokens} new tokens exceed the context of "
                f"{self.context_tokens}"
            )
            return [Failed(request.request_id, reason) for request in batch]
        with torch.inference_mode():
            input_ids_BT = torch.tensor([list(request.prompt_ids) for request in batch], device=self._device)
            return list(self._choose(batch, input_ids_BT) if first.choice_ids else self._generate(batch, input_ids_BT))

    def _choose(self, batch: Sequence[Request], input_ids_BT: Any) -> Iterator[Finished | Failed]:
        logits_BV = self._model(input_ids=input_ids_BT, logits_to_keep=1).logits[:, -1]
        logprobs_BV = logits_BV.float().log_softmax(dim=-1)
        for request, logprobs_V in zip(batch, logprobs_BV, strict=True):
            yield chosen(request, {token: logprobs_V[token].item() for token in request.choice_ids.values()})

    def stream(
        self, request: Request, on_text: Callable[[str], None], stopped: Callable[[], bool]
    ) -> Finished | Failed:
        words = _Words(self._tokenizer, request.prompt_ids, on_text)

        def criterion(input_ids_BT: Any, scores: Any, **_: Any) -> Any:
            return torch.full((len(input_ids_BT),), stopped(), device=input_ids_BT.device)

        with torch.inference_mode():
            input_ids_BT = torch.tensor([list(request.prompt_ids)], device=self._device)
            (output_ids_T,) = self._output_ids(request, input_ids_BT, streamer=words, stopping_criteria=[criterion])
        finished = self._finished(request, output_ids_T[len(request.prompt_ids) :], self._ends())
        words.give(finished.text)
        cut = finished.finish_reason == "length" and finished.completion_tokens < request.max_new_tokens
        return dataclasses.replace(finished, finish_reason="interrupted") if cut else finished

    def _generate(self, batch: Sequence[Request], input_ids_BT: Any) -> Iterator[Finished | Failed]:
        first = batch[0]
        stop = {"stopping_criteria": [self._said(first)]} if first.stop else {}
        for request, output_ids_T in zip(batch, self._output_ids(first, input_ids_BT, **stop), strict=True):
            yield self._finished(request, output_ids_T[len(request.prompt_ids) :], self._ends())

    def _output_ids(self, first: Request, input_ids_BT: Any, **more: Any) -> list[list[int]]:
        """Prompts and what was generated after them, as the first request says."""
        draw: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if first.seed is not None:
            torch.manual_seed(first.seed)  # `generate` draws from torch's global stream and takes no generator
            draw = {"do_sample": True, "temperature": first.temperature, "top_p": first.top_p, "top_k": 0}
        ends = self._ends()
        output_ids_BT = self._model.generate(
            input_ids_BT,
            attention_mask=torch.ones_like(input_ids_BT),
            max_new_tokens=first.max_new_tokens,
            eos_token_id=sorted(ends) or None,
            pad_token_id=min(ends, default=0),
            **draw,
            **more,
        )
        return list(output_ids_BT.tolist())

    def _said(self, first: Request) -> Callable[..., Any]:
        """Whether a stop string stands behind the prompt; a prompt's end is no part of one."""
        behind = len(first.prompt_ids)
        reach = max(len(stop.encode()) for stop in first.stop)  # in tokens: none is shorter than a byte

        def criterion(input_ids_BT: Any, scores: Any, **_: Any) -> Any:
            start = max(behind, input_ids_BT.shape[1] - reach)
            # Behind the token before: alone, a tokenizer of words drops the space before the first of them.
            before = self._tokenizer.batch_decode(input_ids_BT[:, start - 1 : start], skip_special_tokens=True)
            whole = self._tokenizer.batch_decode(input_ids_BT[:, start - 1 :], skip_special_tokens=True)
            texts = [text[len(lead) :] for text, lead in zip(whole, before, strict=True)]
            found = [any(stop in text for stop in first.stop) for text in texts]
            return torch.tensor(found, device=input_ids_BT.device)

        return criterion

    def _ends(self) -> set[int]:
        return _as_set(self._model.generation_config.eos_token_id) | _as_set(self._tokenizer.eos_token_id)

    def _finished(self, request: Request, new_ids: list[int], ends: set[int]) -> Finished:
        end = next((index for index, token in enumerate(new_ids) if token in ends), None)
        length = len(new_ids) if end is None else end + 1  # what follows is filling
        # Decoded behind the prompt: alone, a tokenizer of words drops the space before the first of them.
        prompt = self._tokenizer.decode(request.prompt_ids, skip_special_tokens=True)
        whole = self._tokenizer.decode([*request.prompt_ids, *new_ids[:length]], skip_special_tokens=True)
        text = whole[len(prompt) :]
        cut = min((text.find(stop) for stop in request.stop if stop in text), default=None)
        if cut is not None and end is not None:
            length = end  # the text ended it; an end mark after that is filling
        stopped = end is not None or cut is not None
        if not stopped:
            text = text.rstrip("\ufffd")  # a character cut in two by the cap; vLLM does not give it either
        return Finished(
            request_id=request.request_id,
            text=text[:cut],
            finish_reason="stop" if stopped else "length",
            completion_tokens=length,
        )


class _Words:
    """What `generate` hands its tokens to: gives the text as far as it will not change any more."""

    def __init__(self, tokenizer: Any, prompt_ids: Iterable[int], on_text: Callable[[str], None]) -> None:
        self._tokenizer, self._on_text = tokenizer, on_text
        self._ids = list(prompt_ids)
        self._prompt_length = len(tokenizer.decode(self._ids, skip_special_tokens=True))
        self._prompt_came, self._given = False, 0

    def put(self, ids: Any) -> None:
        if not self._prompt_came:  # `generate` begins with it
            self._prompt_came = True
            return
        self._ids += ids.flatten().tolist()
        text = self._tokenizer.decode(self._ids, skip_special_tokens=True)[self._prompt_length :]
        self.give(text.rstrip("\ufffd"))  # the rest of a character is yet to come

    def give(self, text: str) -> None:
        if len(text) > self._given:
            self._on_text(text[self._given :])
            self._given = len(text)

    def end(self) -> None:
        """`generate` calls it at the end."""


def _tokens(request: Request) -> int:
    return len(request.prompt_ids) + request.max_new_tokens


def _alike(request: Request) -> tuple[Any, ...]:
    """Requests that may run together."""
    return (
        len(request.prompt_ids),
        request.max_new_tokens,
        request.stop,
        request.temperature,
        request.top_p,
        bool(request.choice_ids),
        -1 if request.seed is None else request.seed,
        "" if request.seed is None else request.request_id,  # a random stream is not shared
    )


def _as_set(ids: int | list[int] | None) -> set[int]:
    return set() if ids is None else {ids} if isinstance(ids, int) else set(ids)
