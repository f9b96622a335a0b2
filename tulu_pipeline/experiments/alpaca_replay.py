"""Published outputs and GPT-4's published annotations of them, to the leaderboard's win rates, to the last digit."""

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.models import tiny
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import Replay
from tulu_pipeline.specs.recorded_model import RecordedModel

_RESULTS = "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20/results"
_LICENSE = "Apache-2.0; outputs as their models' licenses have it"
_CITATION = "Li et al. 2023, AlpacaEval: An Automatic Evaluator of Instruction-following Models"

_ANNOTATIONS = {
    f"{name}.json": PinnedFile(url=f"{_RESULTS}/{name}/alpaca_eval_gpt4/annotations.json", sha256=sha256)
    for name, sha256 in (
        ("vicuna-13b", "3e43d5de375aa1e8c9d0148a4b352dd5b5ee04f0644469e597c155d28641ea61"),
        ("alpaca-7b", "d44ea50f1a81f6ae6a95e8ac1dd08b7eca82cc0a9058a2923b1c70cec1e9eaa5"),
        ("text_davinci_001", "09d486ce69568c52229e2123c9e3a0d7c485d64c709d86505297301289c8880b"),
    )
}


def _recorded(name: str, label: str, sha256: str, *, missing_are_empty: bool = False) -> RecordedModel:
    outputs = PinnedFile(url=f"{_RESULTS}/{name}/model_outputs.json", sha256=sha256)
    return RecordedModel(
        name=name,
        label=label,
        outputs={"alpaca_eval": outputs},
        missing_are_empty=missing_are_empty,
        license=_LICENSE,
        citation=_CITATION,
    )


EXPERIMENT = Experiment(
    name="alpaca_replay",
    title="AlpacaEval, recomputed from the published annotations",
    hypothesis="the win rates and standard errors of the published leaderboard come out to the last digit",
    models=(),
    mixtures=(),
    recorded_models=(
        _recorded("vicuna-13b", "Vicuna 13B", "9d69b499511ce24f14490d9387ea9dbc494db9c2074ecd580ec2ff16e3cb2448"),
        _recorded("alpaca-7b", "Alpaca 7B", "21048628f20187affc7d9c9e756d9618e08c4991fc8a48184612eb484565c5db"),
        _recorded(
            "text_davinci_001",
            "text-davinci-001",
            "0a13ce314e60b0a710f4dad5cb6e8fe2159f2333232b66328868360eb0c8790d",
            missing_are_empty=True,
        ),
    ),
    # The answers of text-davinci-003 that the annotations were made against; those of `results/text_davinci_003` at
    # the same commit are others.
    own_benchmarks=(alpaca_eval.with_reference(_ANNOTATIONS["alpaca-7b.json"]),),
    benchmarks={"alpaca_eval": ("alpaca_eval", "alpaca_eval_unique_tokens")},
    average="none",
    judges={"alpaca_eval": Replay(annotations=_ANNOTATIONS, annotator="alpaca_eval_gpt4")},
    data_tokenizer=tiny.FAMILY.model("tiny-10m").tokenizer,
    notes=(
        "AlpacaEval: 805 instructions against text-davinci-003; the annotations that the leaderboard's "
        "`alpaca_eval_gpt4` stored, replayed. Nothing is generated, nobody is asked.",
        "By unique tokens: the paper's false evaluator on the same pairs, counting tokens of a small BPE trained on "
        "the demo's text, not LLaMA's.",
        "text-davinci-001 lacks two outputs; they count as empty, as in the annotations. One of its annotations could "
        "not be read and is left out, as on the leaderboard.",
    ),
)
