"""Judges that stand in: made here, alike everywhere, and of two minds."""

import hashlib
from pathlib import Path

import pytest

from tulu_pipeline.judging.toxicity import Text
from tulu_pipeline.specs.judge import Judge
from tulu_pipeline.stand_ins import CLASSIFIER, TRUTH_JUDGES, write_classifier, write_truth_judge

# Every machine must make these bytes; what changes them is a new version of the source.
SHA256 = {
    "classifier": "56901912256e6a97fa57a79583d433df304d3d7335e4300c82dbf70b5b37f055",
    "judge": "5c80b689aa15409779217363959d7be8fe7b7f5f56ab05b5e3b42da64064bcea",
    "tokenizer": "2bd0f732266fbac13a97cc04285dded90b15d1ca78268ce1fecd761acbaead96",
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    write_classifier(folder, name="stand-in-toxicity")
    return folder


def test_the_bytes_are_the_same_everywhere(classifier: Path, tmp_path: Path) -> None:
    write_truth_judge(tmp_path, name="stand-in-truth")
    found = {
        "classifier": sha256(classifier / "model.safetensors"),
        "judge": sha256(tmp_path / "model.safetensors"),
        "tokenizer": sha256(tmp_path / "tokenizer.json"),
    }
    assert found == SHA256


def test_the_classifier_is_whole_and_finds_some_texts_toxic_and_others_not(classifier: Path) -> None:
    from tulu_pipeline.judging.toxicity_worker import Classifier

    texts = [Text(sha256=str(number), text=" ".join(["word", "one"] * number)) for number in range(60)]
    texts.append(Text(sha256="long", text="word " * 3_000))
    verdicts = list(Classifier(str(classifier), max_length_tokens=512, gpu=False).classify(texts, 8))
    assert {verdict.label for verdict in verdicts} == {0, 1}
    assert [verdict.sha256 for verdict in verdicts if verdict.cut] == ["long"]


@pytest.mark.parametrize("judge", [CLASSIFIER, TRUTH_JUDGES], ids=["toxicity", "truth"])
def test_a_stand_in_is_called_one_and_downloads_nothing(judge: Judge) -> None:
    assert judge.called.startswith("stand-in")
    addresses = [source.address() for files in judge.downloads().values() for source in files.values()]
    assert addresses
    assert all(address.startswith("builtin:tulu_pipeline.stand_ins:") for address in addresses)
