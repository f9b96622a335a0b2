"""The transformers engine in this process: weights in 8 bits, and memory that runs out."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_runs import write_tiny_model

from tulu_pipeline.inference.engine import EngineSettings, Failed, Finished, Request
from tulu_pipeline.inference.prompts import encode_prompts
from tulu_pipeline.memory import Batches, TooLarge, is_out_of_memory
from tulu_pipeline.tokens.control_tokens import Prompt
from tulu_pipeline.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.timeout(240)
LETTERS = {"A": 36, "B": 37, "C": 38, "D": 39}
Answers = dict[str, Finished | Failed]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(model: Path) -> Any:
    import torch

    from tulu_pipeline.inference.transformers_engine import TransformersEngine

    torch.set_num_threads(1)  # several wait for each other where cores are few
    return TransformersEngine(EngineSettings(engine="transformers", model=str(model), dtype="float32"))


@pytest.fixture(scope="module")
def undisturbed(engine: Any) -> Answers:
    given = answers(engine, requests())
    assert engine.note == ""
    return given


def requests(seed: int = 0) -> list[Request]:
    """Texts, drawn texts and letters after prompts of three lengths."""
    draw = random.Random(seed)
    made = []
    for number in range(36):
        kind, prompt_ids = number % 4, [1, *draw.choices(range(300, 1300), k=(20, 40, 80)[number // 4 % 3])]
        made.append(
            Request(
                request_id=f"{number}",
                prompt_ids=prompt_ids,
                max_new_tokens=1 if kind in (2, 3) else 5,
                temperature=0.8 if kind == 1 else 0.0,
                seed=number if kind == 1 else None,
                choice_ids=LETTERS if kind in (2, 3) else {},
            )
        )
    return made


def answers(engine: Any, asked: list[Request]) -> Answers:
    return {answer.request_id: answer for answer in engine.submit(asked)}


def test_a_stop_string_ends_a_text_as_soon_as_it_is_there_and_never_across_the_prompts_end(
    model: Path, engine: Any
) -> None:
    tokenizer = load_tokenizer(model)
    (prompt_ids,) = encode_prompts([Prompt(text="What is 2 and 3?\n")], tokenizer)

    def answer(*stop: str) -> Finished:
        request = Request(request_id="0", prompt_ids=prompt_ids, max_new_tokens=24, stop=stop)
        (found,) = engine.submit([request])
        assert isinstance(found, Finished)
        return found

    whole = answer()
    assert whole.finish_reason == "length"
    assert answer(f"\n{whole.text[:2]}") == whole
    middle = whole.text[9:13]
    cut = answer(middle)
    assert cut.text == whole.text[: whole.text.find(middle)]
    assert cut.finish_reason == "stop"
    assert cut.completion_tokens < whole.completion_tokens


def test_weights_in_8_bits_answer_nearly_as_whole_ones_and_each_request_by_itself(
    model: Path, undisturbed: Answers
) -> None:
    from tulu_pipeline.inference.transformers_engine import TransformersEngine

    settings = EngineSettings(engine="transformers", model=str(model), dtype="float16", quantization="int8")
    eight_bits, asked = TransformersEngine(settings), requests()
    layers = [each for each in eight_bits._model.modules() if type(each).__name__ == "Linear8bitLt"]
    assert {str(each.weight.dtype) for each in layers} == {"torch.int8"}
    assert len(layers) == 7 * eight_bits._model.config.num_hidden_layers
    ours = answers(eight_bits, asked)
    apart = [
        abs(mine - theirs)
        for request in asked
        for mine, theirs in zip(logprobs(ours, request), logprobs(undisturbed, request), strict=True)
    ]
    # What float16 alone changes is 0.01 at most; the logits of this model are 0.8 wide.
    assert 0.01 < max(apart) < 0.3
    greedy = [request.request_id for request in asked if request.seed is None and not request.choice_ids]
    alike = sum(ours[each] == undisturbed[each] for each in greedy)
    assert alike >= len(greedy) // 2
    few = random.Random(1).sample(asked, 12)
    assert answers(eight_bits, few) == {each.request_id: ours[each.request_id] for each in few}


def logprobs(given: Answers, request: Request) -> list[float]:
    answer = given[request.request_id]
    assert isinstance(answer, Finished)
    return list(answer.choice_logprobs.values())


@pytest.fixture
def room(engine: Any) -> Iterator[Callable[[int, str], None]]:
    """Sets how many tokens a forward pass may hold, and what is raised above."""
    import torch

    held: list[Any] = []

    def limit(tokens: int, kind: str) -> None:
        def refuse(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            rows, columns = kwargs["input_ids"].shape
            if rows * columns > tokens:
                if kind == "gpu":
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                if kind == "cpu":
                    torch.empty(10**15)
                raise MemoryError

        held.append(engine._model.register_forward_pre_hook(refuse, with_kwargs=True))

    yield limit
    for each in held:
        each.remove()
    engine._batches._limit, engine._batches.note = None, ""


@pytest.mark.parametrize("kind", ["gpu", "cpu", "python"])
def test_where_memory_runs_out_batches_are_halved_and_nothing_else_changes(
    engine: Any, undisturbed: Answers, room: Callable[[int, str], None], kind: str
) -> None:
    room(170, kind)  # two of the long ones
    ours = answers(engine, requests())
    assert "at a time" in engine.note
    assert ours.keys() == undisturbed.keys()
    for name, answer in ours.items():
        theirs = undisturbed[name]
        assert isinstance(answer, Finished)
        assert isinstance(theirs, Finished)
        # float32 sums in another order
        assert answer.choice_logprobs == pytest.approx(theirs.choice_logprobs, abs=1e-5)
        assert (answer.text, answer.completion_tokens) == (theirs.text, theirs.completion_tokens)


def test_a_request_that_memory_does_not_hold_alone_is_its_own_error(
    engine: Any, undisturbed: Answers, room: Callable[[int, str], None]
) -> None:
    room(60, "gpu")
    ours = answers(engine, requests())
    for request in requests():
        answer = ours[request.request_id]
        if len(request.prompt_ids) > 60:
            assert answer == Failed(
                request.request_id, "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
            )
        elif not request.choice_ids:
            assert answer == undisturbed[request.request_id]


def test_another_error_of_the_model_is_no_matter_of_memory(engine: Any) -> None:
    def break_down(module: Any, args: Any) -> None:
        raise RuntimeError("shapes do not match")

    handle = engine._model.register_forward_pre_hook(break_down)
    try:
        with pytest.raises(RuntimeError, match="shapes do not match"):
            list(engine.submit(requests()))
    finally:
        handle.remove()


@settings(deadline=None)
@given(st.lists(st.integers(1, 50)), st.integers(1, 20), st.integers(1, 200))
def test_every_item_is_worked_on_once_and_in_order_whatever_memory_holds(
    sizes: list[int], most: int, memory: int
) -> None:
    done: list[int] = []

    def work(batch: Any) -> list[int]:
        assert len(batch) <= most
        if len(batch) * max(sizes[index] for index in batch) > memory:
            raise MemoryError
        done.extend(batch)
        return list(batch)

    batches: Batches[int, list[int]] = Batches(most, lambda index: sizes[index])
    given_back = list(batches.run(range(len(sizes)), work))
    assert [index for batch, _ in given_back for index in batch] == list(range(len(sizes)))
    assert done == [index for index, size in enumerate(sizes) if size <= memory]
    assert [isinstance(result, TooLarge) for _, result in given_back if isinstance(result, TooLarge)] == [
        True for size in sizes if size > memory
    ]
    assert bool(batches.note) <= (len(sizes) > 1)


def test_only_errors_that_say_so_are_about_memory() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("expected 3 dimensions"))
    assert not is_out_of_memory(ValueError("out of memory"))
