"""The vLLM engine: requests are fed as there is room and each is given back when it finishes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.inputs import tokens_input
from vllm.sampling_params import RequestOutputKind
from vllm.usage.usage_lib import UsageContext

from tulu_pipeline.inference.engine import EngineSettings, Failed, Finished, Request, chosen


class VllmEngine:
    """A model in vLLM. Its environment must be that of `engine_environment` from the start of the process."""

    def __init__(self, settings: EngineSettings) -> None:
        place: dict[str, Any] = (
            {"tensor_parallel_size": settings.tensor_parallel, "gpu_memory_utilization": settings.gpu_memory_share}
            if settings.gpu
            # Behind a piece of a prompt vLLM takes back what was drawn, which generators on CPUs refuse.
            else {"enforce_eager": True, "enable_chunked_prefill": False}
        )
        self._engine = LLMEngine.from_engine_args(
            EngineArgs(
                model=settings.model,
                dtype=settings.dtype,
                seed=0,
                max_num_seqs=settings.sequences,
                enable_prefix_caching=True,
                disable_log_stats=True,
                **place,
            ),
            # On a GPU as many at a time as vLLM takes for work that nobody waits for, not for a chat.
            usage_context=UsageContext.LLM_CLASS if settings.gpu else UsageContext.ENGINE_CONTEXT,
        )
        self._sequences = int(self._engine.vllm_config.scheduler_config.max_num_seqs)
        self._is_cut = settings.sequences is not None

    @property
    def context_tokens(self) -> int:
        return int(self._engine.model_config.max_model_len)

    @property
    def note(self) -> str:
        return f"out of memory with more than {self._sequences} at a time" if self._is_cut else ""

    def submit(self, requests: Iterable[Request]) -> Iterator[Finished | Failed]:
        waiting = iter(requests)
        under_way: dict[str, Request] = {}
        while True:
            for request in itertools.islice(waiting, 2 * self._sequences - len(under_way)):
                try:
                    self._engine.add_request(
                        request.request_id, tokens_input(list(request.prompt_ids)), _params(request)
                    )
                except ValueError as error:  # vLLM's own checks of one request
                    yield Failed(request.request_id, str(error))
                else:
                    under_way[request.request_id] = request
            if not under_way:
                return
            for output in self._engine.step():
                if output.finished:
                    yield _result(under_way.pop(output.request_id), output.outputs[0])

    def stream(
        self, request: Request, on_text: Callable[[str], None], stopped: Callable[[], bool]
    ) -> Finished | Failed:
        params = _params(request)
        params.output_kind = RequestOutputKind.CUMULATIVE
        try:
            self._engine.add_request(request.request_id, tokens_input(list(request.prompt_ids)), params)
        except ValueError as error:
            return Failed(request.request_id, str(error))
        given, tokens = "", 0
        while True:
            if stopped():
                self._engine.abort_request([request.request_id])
                return Finished(
                    request_id=request.request_id, text=given, finish_reason="interrupted", completion_tokens=tokens
                )
            for output in self._engine.step():
                completion = output.outputs[0]
                if len(completion.text) > len(given):
                    on_text(completion.text[len(given) :])
                given, tokens = completion.text, len(completion.token_ids)
                if output.finished:
                    return _result(request, completion)


def _params(request: Request) -> Any:
    if request.choice_ids:
        return SamplingParams(
            max_tokens=1,
            temperature=0.0,
            logprob_token_ids=list(request.choice_ids.values()),
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    return SamplingParams(
        max_tokens=request.max_new_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        stop=list(request.stop),
        seed=request.seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _result(request: Request, output: Any) -> Finished | Failed:
    if output.finish_reason not in ("stop", "length"):
        return Failed(request.request_id, f"the engine ended the request: {output.finish_reason}")
    if not request.choice_ids:
        return Finished(
            request_id=request.request_id,
            text=output.text,
            finish_reason=output.finish_reason,
            completion_tokens=len(output.token_ids),
        )
    return chosen(request, {token: float(told.logprob) for token, told in output.logprobs[0].items()})
