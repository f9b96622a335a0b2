"""What an engine is: a loaded model that takes requests and gives back each finished one at once."""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from tulu_pipeline.errors import MissingOnMachine

EngineName = Literal["vllm", "transformers"]
Dtype = Literal["float32", "bfloat16", "float16"]
Quantization = Literal["none", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion that is wanted.

    Attributes:
        request_id: unique among the requests of one `submit`.
        prompt_ids: token ids, BOS included.
        max_new_tokens: cap; prompt and cap fit the model's context.
        temperature: 0 is greedy. top_p: nucleus.
        stop: strings that end the completion; cut off, not kept.
        seed: of this request's own random stream; None for greedy requests.
        choice_ids: for a choice: letter to token id. Nothing is generated then.
    """

    request_id: str
    prompt_ids: Sequence[int]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choice_ids: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A request that was answered; `finish_reason` is "stop" or "length"."""

    request_id: str
    text: str = ""
    finish_reason: str = "stop"
    completion_tokens: int = 0
    choice_logprobs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that was not answered, and why. Never an empty text."""

    request_id: str
    reason: str


class Engine(Protocol):
    """A model, loaded once. An engine that breaks raises; a request that cannot be answered is a `Failed`."""

    @property
    def context_tokens(self) -> int:
        """The longest sequence, prompt and completion together."""

    @property
    def note(self) -> str:
        """What a person should know of how it runs; "" for nothing."""

    def submit(self, requests: Iterable[Request]) -> Iterator[Finished | Failed]:
        """Answer every request, in any order, each as soon as it is finished. `requests` is read as room appears."""


class StreamingEngine(Engine, Protocol):
    """An engine that also gives a completion while it is written."""

    def stream(
        self, request: Request, on_text: Callable[[str], None], stopped: Callable[[], bool]
    ) -> Finished | Failed:
        """Answer one request.

        Args:
            request: no choice; `stop` is not looked at.
            on_text: called with each new piece of the text.
            stopped: asked at every token whether to end; the finish reason is then "interrupted".
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What loads an engine.

    Attributes:
        engine: which one.
        model: folder of a Hugging Face checkpoint.
        dtype: compute type.
        quantization: of the weights; `int8` by bitsandbytes, of the transformers engine alone.
        gpu: whether to use the GPU. tensor_parallel: over how many. gpu_memory_share: of each, at most.
        cache_gib: key-value cache on a CPU.
        sequences: that vLLM works on at a time, at most; None for as many as it takes by itself.
    """

    engine: EngineName
    model: str
    dtype: Dtype
    quantization: Quantization = "none"
    gpu: bool = False
    tensor_parallel: int = 1
    gpu_memory_share: float = 0.9
    cache_gib: int = 1
    sequences: int | None = None


def chosen(request: Request, logprobs: Mapping[int, float]) -> Finished | Failed:
    """What a model says of each letter of a choice, by the log probabilities of tokens.

    A letter that is not among them, or whose is no number, makes the request a failed one.
    """
    missing = [letter for letter, token in request.choice_ids.items() if token not in logprobs]
    if missing:
        return Failed(request.request_id, f"no log probability of {', '.join(missing)}")
    found = {letter: logprobs[token] for letter, token in request.choice_ids.items()}
    if not all(map(math.isfinite, found.values())):
        return Failed(request.request_id, f"log probabilities that are no numbers: {found}")
    return Finished(request_id=request.request_id, choice_logprobs=found)


def engine_environment(settings: EngineSettings) -> dict[str, str]:
    """Variables that must be set before the engine's process starts."""
    offline = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "true"}
    if settings.gpu:
        return offline
    return offline | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: loads in 2 s instead of 14
        "VLLM_CPU_KVCACHE_SPACE": str(settings.cache_gib),
        "TORCHDYNAMO_DISABLE": "1",  # log probabilities would be compiled, which needs a C++ compiler and 15 s
    }


def load_engine(settings: EngineSettings) -> StreamingEngine:
    """Load the model; seconds to minutes."""
    if settings.engine == "vllm":
        from tulu_pipeline.inference.vllm_engine import VllmEngine

        return VllmEngine(settings)
    from tulu_pipeline.inference.transformers_engine import TransformersEngine

    return TransformersEngine(settings)


def what_lacks(engine: EngineName, *, gpu: bool, quantization: Quantization = "none") -> MissingOnMachine | None:
    """What this machine lacks for `engine`, found without importing it; None where nothing speaks against it."""
    packages = ["vllm" if engine == "vllm" else "transformers"]
    if quantization == "int8":
        packages += ["bitsandbytes", "accelerate"]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            extra = ("serve-cuda" if gpu else "serve-cpu") if package == "vllm" else "train"
            fix = f"`pip install 'tulu-pipeline[{extra}]'`"
            return MissingOnMachine(f"`{package}` is not installed", f"engine {engine}", fix)
    if engine == "vllm" and not gpu:
        try:
            ctypes.CDLL("libnuma.so.1")
        except OSError:
            fix = "`apt install libnuma1`, or engine `transformers`"
            return MissingOnMachine("the system library libnuma is missing", f"engine {engine}", fix)
    return None
