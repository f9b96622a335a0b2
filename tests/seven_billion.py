"""The paper's base models on some of its data, as a user's own experiment file: nothing of it is downloaded."""

from tulu_pipeline.mixtures import MIXTURES
from tulu_pipeline.models import llama, opt, pythia
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import single
from tulu_pipeline.specs.recipe import Lora, Recipe

EXPERIMENT = Experiment(
    name="seven_billion",
    title="The paper's base models",
    hypothesis="how much it takes can be told beforehand",
    models=(llama.FAMILY.model("llama-7b"), llama.FAMILY.model("llama-65b")),
    mixtures=(single("alpaca"), single("sharegpt"), MIXTURES["human_mix"], MIXTURES["human_gpt_mix"]),
    benchmarks={"gsm": ("gsm_cot",)},
)
OTHERS = Experiment(
    name="others",
    title="OPT and Pythia",
    hypothesis="other architectures are counted too",
    models=(opt.FAMILY.models[0], pythia.FAMILY.models[0]),
    mixtures=(single("alpaca"),),
    benchmarks={"gsm": ("gsm_cot",)},
    data_tokenizer=llama.TOKENIZER,
)
ADAPTERS = Experiment(
    name="adapters",
    title="QLoRA",
    hypothesis="4-bit weights and adapters fit a small GPU",
    models=(llama.FAMILY.model("llama-7b"),),
    mixtures=(single("alpaca"),),
    benchmarks={"gsm": ("gsm_cot",)},
    recipe=Recipe(learning_rate=1e-4, lora=Lora(quantization="nf4")),
)
TOO_LONG = Experiment(
    name="too_long",
    title="Contradictions",
    hypothesis="they are told before anything is made",
    models=(llama.FAMILY.model("llama-7b"),),
    mixtures=(single("alpaca"),),
    benchmarks={"gsm": ("gsm_cot",)},
    recipe=Recipe(learning_rate=1e-4, max_length_tokens=4096, lora=Lora(quantization="nf4")),
)
