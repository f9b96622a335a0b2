"""What tests may ask of the machine, and the reason given where it is not there."""

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


def _mirror() -> Path | None:
    """The folder of published data sets: TULU_MIRROR, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("TULU_MIRROR") or _ROOT.parent / "shared" / "data")
    return folder.resolve() if folder.is_dir() else None


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


# marker -> is it there, and why the test is skipped where it is not
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "realdata": (
        lambda: _mirror() is not None,
        "no mirror of the published data sets: set TULU_MIRROR to a folder that holds them",
    ),
    "needs_libnuma": (lambda: _has_library("libnuma.so.1"), "no system library libnuma: `apt install libnuma1`"),
    "needs_compiler": (lambda: shutil.which("g++") is not None, "no C++ compiler: `apt install g++`"),
    "needs_chromium": (lambda: shutil.which("chromium") is not None, "no browser: `apt install chromium`"),
    "gpu": (lambda: Path("/dev/nvidia0").exists(), "no NVIDIA GPU"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, each test marked with something this machine lacks."""
    missing = {name: pytest.mark.skip(reason=reason) for name, (is_there, reason) in NEEDS.items() if not is_there()}
    for item in items:
        for name, skip in missing.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of published data sets; for tests marked `realdata`."""
    folder = _mirror()
    if folder is None:
        pytest.skip(NEEDS["realdata"][1])
    return folder


@pytest.fixture(scope="session", autouse=True)
def _no_trackers() -> Iterator[None]:
    """Trainings of tests are told to no one, whatever the shell says."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def llama_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer as LLaMA's is built, trained on this repository: byte fallback, a space before text.

    Pieces hold no newline and no two digits, as in the real one.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    text = [path.read_text(encoding="utf-8") for path in sorted((_ROOT / "tulu_pipeline").rglob("*.py"))]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "removed"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
        ]
    )
    trained.train_from_iterator(text, trainers.BpeTrainer(vocab_size=1500, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += sorted(learned["vocab"], key=learned["vocab"].__getitem__)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": pieces[index]} | special for index in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": learned["merges"],
        },
    }
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    folder = tmp_path_factory.mktemp("llama_like")
    (folder / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer as Pythia's is built, trained on this repository: byte level, no BOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    text = [path.read_text(encoding="utf-8") for path in sorted((_ROOT / "tulu_pipeline").rglob("*.py"))]
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, show_progress=False, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"]
    )
    trained.train_from_iterator(text, trainer)
    folder = tmp_path_factory.mktemp("byte_level")
    trained.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
