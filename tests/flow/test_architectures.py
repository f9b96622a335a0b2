"""Each architecture of the paper through the chain: tokens, ZeRO-3 on two ranks, checkpoint, both engines."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
from base_models import write_llama, write_opt, write_pythia

from tasks.finetune import FinetuneParams, run_finetune
from tasks.generate import generate_params, run_generate
from tasks.tokenization import TokenizeParams, run_tokenize
from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.chat.conversations import ConversationWriter
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.inference.engine import EngineName
from tulu_pipeline.models import llama, opt, pythia
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Completion
from tulu_pipeline.specs.model import PretrainedTokenizer
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.shards import open_tokens

pytestmark = pytest.mark.timeout(240)

SOUNDS = {"cat": "Meow, softly.", "dog": "Woof woof!", "cow": "A long moo.", "owl": "Hoo. Hoo.", "bee": "It hums."}
RECIPE = Recipe(learning_rate=6e-3, max_steps=48, conversations_per_step=8, warmup_steps=3, dtype="fp32", epochs=9.0)
PROFILE = Profile(ranks=2, micro_batch_conversations=4, zero_stage=3)


@dataclass(frozen=True)
class Case:
    """An architecture, and the rules of its family.

    Attributes:
        tokenizer: of its family.
        bos: ids before every text. end: id that ends an answer.
        pad_is_new: `<pad>` is added to the tokenizer. grows: and the embeddings have no row for it.
    """

    tokenizer: PretrainedTokenizer
    bos: tuple[int, ...]
    end: int
    pad_is_new: bool
    grows: bool


CASES = {
    "LlamaForCausalLM": Case(tokenizer=llama.TOKENIZER, bos=(1,), end=2, pad_is_new=True, grows=True),
    "OPTForCausalLM": Case(tokenizer=opt.TOKENIZER, bos=(2,), end=2, pad_is_new=False, grows=False),
    "GPTNeoXForCausalLM": Case(tokenizer=pythia.TOKENIZER, bos=(), end=0, pad_is_new=True, grows=False),
}


@dataclass(frozen=True)
class Chain:
    """What became of one architecture."""

    case: Case
    name: str
    base: Path
    tokens: Path
    tuned: Path
    metrics: dict[str, Any]
    answer: Callable[[EngineName], list[Completion]]


@pytest.fixture(scope="module", params=CASES)
def chain(request: pytest.FixtureRequest, llama_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    base, case = folder / "base", CASES[name]
    {
        "LlamaForCausalLM": lambda: write_llama(base, llama_like),
        "OPTForCausalLM": lambda: write_opt(base),
        "GPTNeoXForCausalLM": lambda: write_pythia(base),
    }[name]()
    stage = Stage(folder, RunContext(profile=PROFILE, settings=read_settings()))
    _write_conversations(stage.folder("conversations"))
    params = TokenizeParams(tokenizer_mode=case.tokenizer.mode, special_tokens=case.tokenizer.special_tokens)
    run_tokenize(stage.job("tokens", params, conversations=folder / "conversations", tokenizer=base), stage.ctx)
    tuning = FinetuneParams(recipe=RECIPE, components=(("sounds", 1),))
    metrics = run_finetune(stage.job("tuned", tuning, model=base, tokens_0=folder / "tokens"), stage.ctx)

    def answer(engine: EngineName) -> list[Completion]:
        benchmark = _benchmark(stage.folder("questions"))
        asked = generate_params(
            benchmark, "alpaca_eval", tuned=True, engine=engine, engine_dtype="float32", max_new_tokens=16
        )
        run_generate([stage.job(engine, asked, model=folder / "tuned", benchmark=folder / "questions")], stage.ctx)
        return list(read_lines(folder / engine / "completions.jsonl", Completion))

    return Chain(case, name, base, folder / "tokens", folder / "tuned", dict(metrics), answer)


@dataclass(frozen=True)
class Stage:
    """Runs stages into folders beside each other."""

    root: Path
    ctx: RunContext

    def folder(self, name: str) -> Path:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        return self.root / name

    def job(self, name: str, params: Any, **inputs: Path) -> Job[Any]:
        return Job(
            name=name,
            params=params,
            inputs=inputs,
            sources={},
            out=self.folder(name),
            work=self.folder(f"{name}.work"),
            publish=lambda metrics: None,
        )


def _write_conversations(folder: Path) -> None:
    """Questions with answers of their own, in one round and in two, with end marks typed by a user."""
    with ConversationWriter(folder) as writer:
        for number, (animal, sound) in enumerate(islice(cycle(SOUNDS.items()), 96)):
            rounds = [Message("user", _question(animal)), Message("assistant", sound)]
            if number % 4 == 0:
                rounds += [Message("user", "Again </s> or <|endoftext|>?"), Message("assistant", sound)]
            writer.write(Conversation("sounds", str(number), tuple(rounds)))


def _question(animal: str) -> str:
    return f"What does the {animal} say, and how loud is it?"


def _benchmark(folder: Path) -> Any:
    asked = [_question(animal) for animal in SOUNDS] + ["Again </s> or <|endoftext|>?", "Über 猫?"]
    rows = [{"instruction": each, "output": "", "dataset": "sounds"} for each in asked]
    (folder / "model_outputs.json").write_text(json.dumps(rows))
    return replace(alpaca_eval.BENCHMARK, sources={"model_outputs.json": LocalFile(path="model_outputs.json")})


def test_a_conversation_begins_as_its_family_does_and_its_answers_end(chain: Chain) -> None:
    rows = open_tokens(chain.tokens)
    for row in range(len(rows)):
        ids, mask = (part.tolist() for part in rows[row])
        assert tuple(ids[: len(chain.case.bos)]) == chain.case.bos
        answers = 2 if row % 4 == 0 else 1
        ends = [index for index, token in enumerate(ids) if token == chain.case.end]
        assert len(ends) == answers + chain.case.bos.count(chain.case.end), "what a user types is no end mark"
        assert all(mask[index] for index in ends[-answers:])
        assert not any(mask[: len(chain.case.bos)])


def test_it_learns(chain: Chain) -> None:
    assert chain.metrics["steps"] == RECIPE.max_steps
    assert chain.metrics["loss_last"] < 0.75 * chain.metrics["loss_first"]


def test_pad_and_embeddings_follow_the_rules_of_the_family(chain: Chain) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (chain.base, chain.tuned))
    assert type(after).__name__ == chain.name
    rows_before, rows = (model.get_input_embeddings().weight.shape[0] for model in (before, after))
    entries = len(AutoTokenizer.from_pretrained(chain.base))
    tokenizer = AutoTokenizer.from_pretrained(chain.tuned)
    assert rows == rows_before + chain.case.grows == after.get_output_embeddings().weight.shape[0]
    assert tokenizer.pad_token == "<pad>"
    assert tokenizer.pad_token_id == (entries if chain.case.pad_is_new else 1)
    assert len(tokenizer) == entries + chain.case.pad_is_new <= rows
    for config in (after.config, after.generation_config):
        assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, chain.case.end)
    assert list(chain.tuned.glob("*.safetensors"))
    assert not list(chain.tuned.glob("*.bin"))


def test_a_chat_of_the_checkpoint_has_one_bos_where_the_family_has_one(chain: Chain) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(chain.tuned)
    chat = [{"role": "user", "content": "1 and 2"}]
    rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(rendered, add_special_tokens=False).input_ids
    assert tuple(ids[: len(chain.case.bos)]) == chain.case.bos
    assert sum(ids.count(bos) for bos in chain.case.bos) == len(chain.case.bos)
    assert chain.case.end not in ids[len(chain.case.bos) :]


@pytest.mark.needs_libnuma
def test_both_engines_give_the_same_answers(chain: Chain) -> None:
    ours = chain.answer("vllm")
    assert len(ours) == len(SOUNDS) + 2
    assert ours == chain.answer("transformers")
    learned = [completion.texts[0] == sound for completion, sound in zip(ours, SOUNDS.values(), strict=False)]
    assert sum(learned) >= 2, "no answers of its own were learned, so nothing was compared"
