"""The part of the graph that makes data: raw files to conversations, to tokens, to counts."""

from __future__ import annotations

from collections.abc import Mapping

from flows.catalog import find_dataset
from tasks.describe import DESCRIBE, DescribeParams
from tasks.download import DOWNLOAD, DownloadParams
from tasks.mix import MIX, MixParams
from tasks.normalize import NORMALIZE, NormalizeParams
from tasks.tokenization import TOKENIZE, TokenizeParams
from tulu_pipeline.artifacts.artifact import Artifact, ObjectRef
from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Mixture
from tulu_pipeline.specs.model import PretrainedModel, PretrainedTokenizer
from tulu_pipeline.specs.recipe import Recipe


class DataGraph:
    """Builds the data's artifacts of one experiment, and downloads for all of it; what is shared is one object."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._downloads: dict[str, Artifact] = {}
        self._conversations: dict[str, Artifact] = {}
        self._tokens: dict[str, Artifact] = {}

    def download(self, cell: str, sources: Mapping[str, Source]) -> Artifact:
        """Bytes from outside, by what they are called."""
        made = Artifact(stage=DOWNLOAD, cell=cell, params=DownloadParams(), sources=sources)
        known = self._downloads.setdefault(cell, made)
        if known.sources != sources:
            raise BadInput(f"two sources are both called `{cell}`", self.experiment.name, "rename one")
        return known

    def model(self, model: PretrainedModel) -> Artifact:
        """A base model's files."""
        return self.download(model.name, model.sources)

    def tokenizer(self, tokenizer: PretrainedTokenizer) -> Artifact:
        """A tokenizer's files."""
        return self.download(f"{tokenizer.name}-tokenizer", tokenizer.sources)

    def conversations(self, dataset: Dataset) -> Artifact:
        """The dataset in one chat schema; a dataset that splits long chats also follows from a tokenizer."""
        if dataset.name not in self._conversations:
            inputs = {"raw": self.download(dataset.name, dataset.sources)}
            if dataset.splits_by_tokens:
                inputs["tokenizer"] = self.tokenizer(self._splits_by(dataset))
            self._conversations[dataset.name] = Artifact(
                stage=NORMALIZE,
                cell=dataset.name,
                params=self._normalize_params(dataset),
                inputs=inputs,
                objects=(_ref(dataset),),
            )
        return self._conversations[dataset.name]

    def described(self, dataset: Dataset) -> Artifact:
        """What a dataset holds, in tokens of the experiment's tokenizer."""
        counter = self.counting_tokenizer("the table of the data counts tokens")
        recipe = self.experiment.recipe
        made = self._normalize_params(dataset)
        params = DescribeParams(
            dataset=dataset.name,
            tokenizer_mode=counter.mode if recipe.template == "tulu" else None,
            loss_span=recipe.loss_span,
            special_in_text=recipe.special_in_text,
            max_length_tokens=recipe.max_length_tokens,
            template=recipe.template,
            # What was dropped is counted too, and is no part of what the conversations are known by: other raw rows,
            # another converter or another version of the stage may give the same conversations.
            normalize_version=NORMALIZE.version,
            normalize_seed=made.seed,
            normalize_tokenizer_mode=made.tokenizer_mode,
        )
        inputs = {
            "conversations": self.conversations(dataset),
            "raw": self.download(dataset.name, dataset.sources),
            "tokenizer": self.tokenizer(counter),
        }
        return Artifact(stage=DESCRIBE, cell=dataset.name, params=params, inputs=inputs, objects=(_ref(dataset),))

    def component(self, mixture: Mixture, index: int) -> tuple[str, Artifact]:
        """A component's conversations, filtered and drawn where the mixture says so; and what to call them."""
        component, cap = mixture.components[index], mixture.caps()[index]
        dataset = find_dataset(component.dataset, self.experiment)
        whole = self.conversations(dataset)
        if cap is None and not (component.deduplicate or component.languages or component.licenses):
            return dataset.name, whole
        cell = f"{mixture.name}/{dataset.name}"
        params = MixParams(
            dataset=dataset.name,
            cap=cap,
            seed=42 if cap is None else mixture.seed,  # without a cap nothing is drawn
            whole_cap=component.weight is not None,
            deduplicate=component.deduplicate,
            languages=tuple(sorted(component.languages)),
            licenses=tuple(sorted(component.licenses)),
            dataset_license=dataset.license if component.licenses else "",
        )
        return cell, Artifact(stage=MIX, cell=cell, params=params, inputs={"conversations": whole})

    def tokens(self, tokenizer: PretrainedTokenizer, recipe: Recipe, cell: str, text: Artifact) -> Artifact:
        """Conversations as token ids and loss masks; once per tokenizer, template and length."""
        params = TokenizeParams(
            max_length_tokens=recipe.max_length_tokens,
            loss_span=recipe.loss_span,
            tokenizer_mode=tokenizer.mode if recipe.template == "tulu" else None,
            special_in_text=recipe.special_in_text,
            template=recipe.template,
            special_tokens=tokenizer.special_tokens,
        )
        inputs = {"conversations": text, "tokenizer": self.tokenizer(tokenizer)}
        name = f"{tokenizer.name}+{cell}" + ("" if recipe.template == "tulu" else f"@{recipe.template}")
        for suffix in ("", f"@{recipe.max_length_tokens}", f"@{recipe.max_length_tokens}-{recipe.loss_span}"):
            made = Artifact(stage=TOKENIZE, cell=name + suffix, params=params, inputs=inputs)
            known = self._tokens.setdefault(made.cell, made)
            if known.params == params and known.inputs["conversations"] is text:
                return known
        raise BadInput(f"two ways to tokenize are both called `{made.cell}`", self.experiment.name, "rename a mixture")

    def counting_tokenizer(self, reason: str) -> PretrainedTokenizer:
        """What counts tokens of data, whatever the model.

        Raises:
            BadInput: the experiment has neither such a tokenizer nor a model; `reason` says why one is wanted.
        """
        if self.experiment.data_tokenizer is not None:
            return self.experiment.data_tokenizer
        if not self.experiment.models:
            raise BadInput(
                f"{reason}, and there is no tokenizer", self.experiment.name, "give the experiment a `data_tokenizer`"
            )
        return self.experiment.models[0].tokenizer

    def _normalize_params(self, dataset: Dataset) -> NormalizeParams:
        mode = self._splits_by(dataset).mode if dataset.splits_by_tokens else None
        return NormalizeParams(dataset=dataset.name, tokenizer_mode=mode, definition=dataset)

    def _splits_by(self, dataset: Dataset) -> PretrainedTokenizer:
        return self.counting_tokenizer(f"`{dataset.name}` splits long chats by their tokens")


def _ref(dataset: Dataset) -> ObjectRef:
    return ObjectRef(name=f"dataset {dataset.name}", version=dataset.converter_version, module=dataset.module)
