"""Settings that contradict each other, the model, the tokens or the machine: found before a model is loaded.

What cannot work is an error, all of them told at once; what works but is probably not meant is a note. What a recipe
or a profile refuses by itself (`specs.recipe`, `profile`), and what the launcher needs of the machine that it starts
on, is not repeated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tulu_pipeline.errors import BadInput, NotFound
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.special_tokens import SpecialTokens, differences, how_to_mend
from tulu_pipeline.training.estimates.known import KnownModel, KnownTokens, known_model, known_tokens
from tulu_pipeline.training.schedule import warmup_steps

# GPUs before Ampere, by what the driver calls them: fp16 at most.
_WITHOUT_BF16 = ("V100", "T4", "P100", "P40", "P4", "K80", "GTX", "TITAN", "Quadro", "RTX 2060", "RTX 2070", "RTX 2080")
_LARGE_PARAMETERS = 1_000_000_000
_LORA_RATES = (5e-5, 2e-3)
_FULL_RATE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What cannot work, where it is written, what to write instead."""

    what: str
    where: str
    fix: str


@dataclass(slots=True)
class Findings:
    """What was found.

    Attributes:
        errors: what cannot work.
        notes: what can, and is worth knowing.
    """

    errors: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self) -> None:
        """Raises BadInput with all errors, where there are any."""
        if len(self.errors) == 1:
            raise BadInput(self.errors[0].what, self.errors[0].where, self.errors[0].fix)
        if self.errors:
            lines = [f"{number}. {each.what} ({each.where})" for number, each in enumerate(self.errors, 1)]
            raise BadInput(
                "\n".join([f"{len(self.errors)} settings cannot work", *lines]),
                ", ".join(dict.fromkeys(each.where for each in self.errors)),
                "; ".join(f"{number}. {each.fix}" for number, each in enumerate(self.errors, 1)),
            )


def check_training(
    recipe: Recipe,
    profile: Profile,
    *,
    model: KnownModel | None = None,
    tokens: KnownTokens | None = None,
    device: str = "",
) -> Findings:
    """Everything that can be said before a model is loaded; what is not known is not checked.

    Args:
        recipe: what is to be done.
        profile: how.
        model: what is trained.
        tokens: what on.
        device: name of the GPU, "" where there is none.
    """
    found = Findings()
    _check_profile(recipe, profile, device, found)
    _check_recipe(recipe, found)
    if model is not None:
        _check_model(recipe, model, tokens, found)
    if tokens is not None:
        _check_tokens(recipe, profile, tokens, found)
    return found


def _check_profile(recipe: Recipe, profile: Profile, device: str, found: Findings) -> None:
    where = f"profile `{profile.name}`"
    ranks = profile.ranks * profile.nodes
    if recipe.lora is not None and recipe.lora.quantization != "none" and profile.zero_stage == 3:
        found.errors.append(
            Problem(
                what=f"ZeRO-3 splits weights over ranks, and {recipe.lora.quantization} weights cannot be split",
                where=where,
                fix="write zero_stage = 2 or lower: 4-bit weights take an eighth of fp32's room anyway",
            )
        )
    if profile.nodes > 1 and profile.launcher == "local":
        found.errors.append(
            Problem(
                what=f"{profile.nodes} nodes with the launcher `local`, which starts one",
                where=where,
                fix="write launcher = `hostfile`, `torchrun` or `slurm`, or nodes = 1",
            )
        )
    if profile.offload and profile.zero_stage == 0:
        found.errors.append(
            Problem(
                what="offload without ZeRO does nothing: stage 0 keeps all states on the GPU",
                where=where,
                fix="write zero_stage = 2, or 3 to offload the weights too; or offload = false",
            )
        )
    words = f" {device}"
    if recipe.dtype == "bf16" and any(f" {old}" in words for old in _WITHOUT_BF16):
        found.errors.append(
            Problem(
                what=f"`{device}` does not compute in bf16",
                where="recipe.dtype",
                fix='write dtype = "fp32", or take a GPU of the Ampere generation or newer',
            )
        )
    if 0 < profile.row_tokens < recipe.max_length_tokens and profile.layout == "step":
        found.notes.append(
            f"row_tokens {profile.row_tokens:,} is below max_length_tokens {recipe.max_length_tokens:,}: "
            f"a row holds {recipe.max_length_tokens:,}, since no conversation is cut for it"
        )
    if recipe.batch_plan == "conversation":
        apiece = profile.micro_batch_conversations if profile.layout == "padded" else 1
        busy = -(-recipe.conversations_per_step // apiece)
        if busy < ranks:
            found.notes.append(
                f"{ranks - busy} of {ranks} ranks have nothing to do: a step of {recipe.conversations_per_step} "
                f"conversations fills {busy}"
                + (f" with {apiece} each; lower micro_batch_conversations" if apiece > 1 else "")
            )
    elif recipe.rows_per_step is not None and recipe.rows_per_step % ranks:
        found.notes.append(
            f"{-recipe.rows_per_step % ranks} of {ranks} ranks wait in the last pass of each step of "
            f"{recipe.rows_per_step} rows; a multiple of {ranks} keeps all busy"
        )


def _check_recipe(recipe: Recipe, found: Findings) -> None:
    if recipe.batch_plan == "global" and recipe.loss_norm == "micro_mean":
        found.notes.append(
            "loss_norm `micro_mean` takes its virtual micro-batches from neighbors in a row under batch_plan `global`, "
            "so they are not the original's; `token_mean` has none"
        )
    if recipe.lora is not None and not _LORA_RATES[0] <= recipe.learning_rate <= _LORA_RATES[1]:
        found.notes.append(
            f"learning rate {recipe.learning_rate:g} is unusual for adapters: the original's is 1e-4, and 2e-4 did best"
        )


def _check_model(recipe: Recipe, model: KnownModel, tokens: KnownTokens | None, found: Findings) -> None:
    for broken in model.broken:
        found.errors.append(
            Problem(what=broken, where=f"model `{model.name}`", fix="fetch it again: `tulu run … --refresh download`")
        )
    shape = model.shape
    if recipe.lora is not None and shape is not None:
        try:
            shape.adapter_parameters(recipe.lora.rank, recipe.lora.target_modules)
        except NotFound as error:
            found.errors.append(Problem(what=error.what, where="recipe.lora.target_modules", fix=error.fix))
    contexts = [size for size in (model.context_tokens, shape.context if shape else 0) if size]
    longest = recipe.max_length_tokens if tokens is None else min(tokens.longest, recipe.max_length_tokens)
    if contexts and longest > min(contexts):
        positions = "it has learned no more positions" if shape and shape.positions else "it was trained on no more"
        found.errors.append(
            Problem(
                what=f"conversations of up to {longest:,} tokens, `{model.name}` takes {min(contexts):,}: {positions}",
                where="recipe.max_length_tokens",
                fix=f"write max_length_tokens={min(contexts)}",
            )
        )
    rows = shape.vocabulary if shape else 0
    if rows and model.tokenizer_entries > rows:
        found.errors.append(
            Problem(
                what=f"the tokenizer has {model.tokenizer_entries:,} entries, the embeddings have {rows:,} rows",
                where=f"model `{model.name}`",
                fix="take the tokenizer that belongs to the model: what is added here is a pad token alone",
            )
        )
    elif rows and model.tuned_entries > model.tokenizer_entries:
        grown = model.tuned_entries
        found.notes.append(
            f"`{model.name}` has no pad token: `<pad>` becomes number {model.tokenizer_entries:,}"
            + (f", and the embeddings grow from {rows:,} to {grown:,} rows" if grown > rows else ", which has a row")
        )
    _check_said(model, rows, found)
    if recipe.lora is None and recipe.learning_rate > _FULL_RATE and model.parameters >= _LARGE_PARAMETERS:
        found.notes.append(
            f"learning rate {recipe.learning_rate:g} is high for all of {model.parameters / 1e9:.1f}B weights: "
            "the paper's is 2e-5, and 1e-5 from 30B on"
        )


def _check_said(model: KnownModel, rows: int, found: Findings) -> None:
    """Compare what the model's value says of its special tokens and embeddings with what its files say."""
    where = f"model `{model.name}`"
    if model.special_tokens is not None and model.said_special_tokens is not None:
        fix = how_to_mend(model.special_tokens)
        for told in differences(model.said_special_tokens, model.special_tokens):
            found.errors.append(Problem(what=told, where=where, fix=fix))
    tuned_rows = max(rows, model.tuned_entries)
    if rows and model.tokenizer_entries and model.said_tuned_rows not in {None, tuned_rows}:
        found.errors.append(
            Problem(
                what=f"the embeddings have {tuned_rows:,} rows after finetuning by the model's files, "
                f"and {model.said_tuned_rows:,} by its value",
                where=where,
                fix=f"name the files that were meant, or write tuned_embedding_rows={tuned_rows}",
            )
        )


def _check_tokens(recipe: Recipe, profile: Profile, tokens: KnownTokens, found: Findings) -> None:
    if recipe.held_out_conversations >= tokens.conversations:
        found.errors.append(
            Problem(
                what=f"{recipe.held_out_conversations:,} of {tokens.conversations:,} conversations are held out, "
                "none is left to train on",
                where="recipe.held_out_conversations",
                fix="hold out fewer",
            )
        )
    warmup = warmup_steps(recipe, tokens.steps)
    if warmup and warmup >= tokens.steps:
        what = f"{warmup} steps of warm-up in a training of {tokens.steps}: the learning rate never reaches its peak"
        if recipe.max_steps is None:
            fix = f"write warmup_steps below {tokens.steps}, or warmup_ratio=0.03 alone"
            found.errors.append(Problem(what=what, where="recipe.warmup_steps", fix=fix))
        else:
            found.notes.append(what)
    for name in tokens.others:
        found.errors.append(
            Problem(
                what=f"the tokens of `{name}` were made by another tokenizer than the model's",
                where="model.tokenizer",
                fix="give the model the tokenizer that its own files hold",
            )
        )


def check_folders(
    recipe: Recipe,
    profile: Profile,
    *,
    name: str,
    model: Path,
    components: Sequence[tuple[Path, int]],
    device: str,
    context_tokens: int = 0,
    special_tokens: SpecialTokens | None = None,
    tuned_rows: int | None = None,
) -> list[str]:
    """Check a training whose model and tokens are there; the notes.

    Args:
        recipe: what is to be done.
        profile: how.
        name: the model's, for people.
        model: its folder.
        components: folder of each component's tokens and how often each conversation is seen in an epoch.
        device: name of the GPU, "" where there is none.
        context_tokens: the longest sequence by the model's value; 0 where it does not say.
        special_tokens: by the model's value; None is not compared.
        tuned_rows: of the embeddings after finetuning, likewise.

    Raises:
        BadInput: it cannot work; says all the reasons.
    """
    known = known_model(model, name, context_tokens=context_tokens)
    found = check_training(
        recipe,
        profile,
        model=replace(known, said_special_tokens=special_tokens, said_tuned_rows=tuned_rows),
        tokens=known_tokens(components, recipe, profile, model=model),
        device=device,
    )
    found.refuse()
    return found.notes
