"""A tuned model from its weight diff: base plus diff, tensor by tensor, so that no model ever lies whole in memory.

As the original's script does it (open-instruct b55563782, scripts/weight_diff.py): both in float32, added in float32.
Where the diff has one row of embeddings more, the base's are grown by their mean first, for the pad token that tuning
added. Two things differ: the mean is taken in float64, row after row, so that it is the same number everywhere; and a
diff that is none on this base is refused, where the script only sees that shapes differ.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tulu_pipeline.artifacts.model_files import TOKENIZER_FILES, has_tokenizer
from tulu_pipeline.chat.options import Template
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.model import WeightDiff
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.tokenizer import load_tokenizer, read_json
from tulu_pipeline.tokens.tulu_template import write_tulu_template
from tulu_pipeline.weights.shards import SHARD_BYTES, ShardWriter
from tulu_pipeline.weights.tensors import TensorFiles

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HALVES = ("bfloat16", "float16")
# What two models must share to be added; the number of embeddings is compared where tensors are.
_ARCHITECTURE = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "ffn_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "tie_word_embeddings",
)
_OUTPUT_LAYERS = frozenset({"lm_head.weight", "embed_out.weight"})  # of a tied model: the embeddings once more
_SHARE_OF_DTYPE = 0.99  # a weight far smaller than the base's was rounded when the diff was made
_ANOTHER_BASE = "name the base model, and the commit of it, that the diff was made with"


def recover(
    *,
    base: Path,
    diff: Path,
    tokenizer: Path | None,
    out: Path,
    spec: WeightDiff,
    template: Template,
    report: Callable[[int, int], None],
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Write the tuned model that `diff` stands for: safetensors, configuration, tokenizer with its chat template.

    The same folders give the same bytes. Memory holds one file of the result, and one tensor of base and diff.

    Args:
        base: folder of the base model.
        diff: folder of the diff, with the tuned model's configuration.
        tokenizer: folder of the tokenizer that goes with it; None takes the diff's, or the base's where it has none.
        out: folder.
        spec: what is known of the diff.
        template: the chat format it was taught.
        report: called with the bytes of weights done and in all.
        shard_bytes: a file of weights is no larger, unless a single tensor is.

    Returns:
        tensors, parameters, grown rows, the sum of all weights, which share of them bfloat16 and float16 have, and
        whose tokenizer it has.

    Raises:
        BadInput: the diff is not one on this base: another architecture, other tensors, shapes or vocabulary, weights
            of another type or sum than `spec` says. Or files that cannot be read, and a tokenizer that does not fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    base_config, config = (read_json(folder / "config.json") for folder in (base, diff))
    _check_architecture(base_config, config, diff)
    whose, tokenizer = _choose_tokenizer({"given": tokenizer, "diff": diff, "base": base})
    metrics = _recover_weights(_Pair.of(base, base_config, diff, config), out, spec, report, shard_bytes)
    config = {name: value for name, value in config.items() if name != "torch_dtype"} | {"dtype": spec.dtype}
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for folder in (diff, base):
        if (folder / "generation_config.json").is_file():
            shutil.copyfile(folder / "generation_config.json", out / "generation_config.json")
            break
    _write_tokenizer(tokenizer, out, template, rows=config.get("vocab_size"))
    return metrics | {"tokenizer": whose}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Base and diff, with the same tensors.

    Attributes:
        shapes: of each recovered tensor, in the order of the diff's files.
        grown: names of the tensors that have one row more than the base's.
    """

    base: TensorFiles
    diff: TensorFiles
    shapes: Mapping[str, tuple[int, ...]]
    grown: frozenset[str]

    @staticmethod
    def of(base: Path, base_config: Mapping[str, Any], diff: Path, config: Mapping[str, Any]) -> _Pair:
        """Raises BadInput where a tensor is in one of them only, or has another shape."""
        ours, theirs = TensorFiles(base), TensorFiles(diff)
        left_out = _OUTPUT_LAYERS if config.get("tie_word_embeddings") else frozenset()
        shapes = {name: shape for name, shape in theirs.shapes.items() if name not in left_out}
        _check_names(shapes.keys(), ours.shapes.keys() - left_out, diff)
        entries = [base_config.get("vocab_size"), config.get("vocab_size")]
        grown = set()
        for name, shape in shapes.items():
            before = ours.shapes[name]
            if shape == before:
                continue
            if entries != [*before[:1], *shape[:1]] or shape[1:] != before[1:]:
                raise BadInput(f"`{name}` is {_size(shape)}, and {_size(before)} in the base", str(diff), _ANOTHER_BASE)
            if shape[0] != before[0] + 1:
                raise BadInput(
                    f"`{name}` has {shape[0]:,} rows, and {before[0]:,} in the base: what the new rows were "
                    "subtracted from is known of a single one, the pad token's",
                    str(diff),
                    "recover it with its makers' script, and name the folder",
                )
            grown.add(name)
        return _Pair(base=ours, diff=theirs, shapes=shapes, grown=frozenset(grown))

    def add(self, name: str) -> torch.Tensor:
        """A recovered tensor, in float32."""
        before = self.base.read(name)
        if name in self.grown:
            before = torch.cat([before, _mean_row(before)])
        return before + self.diff.read(name)


def _recover_weights(
    pair: _Pair, out: Path, spec: WeightDiff, report: Callable[[int, int], None], shard_bytes: int
) -> dict[str, Any]:
    writer = ShardWriter(out, pair.shapes, _DTYPES[spec.dtype], shard_bytes)
    sums, compared, fitting = [], 0, dict.fromkeys(_HALVES, 0)
    for name in pair.shapes:
        weights = pair.add(name)
        sums.append(float(weights.sum(dtype=torch.float64)))
        if not math.isfinite(sums[-1]):
            raise BadInput(f"`{name}` adds up to {sums[-1]}", str(pair.diff.folder), "fetch the diff again")
        known = weights[:-1] if name in pair.grown else weights  # the grown row is a guess
        fits = {half: int(torch.count_nonzero(known.to(_DTYPES[half]) == known)) for half in _HALVES}
        if spec.tuned_dtype and known.dim() > 1:
            shares = {half: fits[half] / known.numel() for half in _HALVES}
            _check_dtype(spec.tuned_dtype, shares, name, pair.diff.folder)
        compared += known.numel()
        fitting = {half: fitting[half] + fits[half] for half in _HALVES}
        writer.write(name, weights)
        report(writer.bytes_done, writer.bytes_in_all)
    total = math.fsum(sums)
    # Their sum was taken in float32, in an order of its own; other weights differ far more.
    if spec.weights_sum is not None and not math.isclose(total, spec.weights_sum, rel_tol=1e-4, abs_tol=0.01):
        raise BadInput(
            f"the recovered weights add up to {total:,.4f}, and by their publisher to {spec.weights_sum:,.4f}",
            str(pair.diff.folder),
            _ANOTHER_BASE,
        )
    return {
        "tensors": len(pair.shapes),
        "parameters": sum(math.prod(shape) for shape in pair.shapes.values()),
        "grown_rows": int(bool(pair.grown)),
        "weights_sum": round(total, 4),
        **{f"share_in_{half}": round(fitting[half] / compared, 6) for half in _HALVES},
    }


def _check_dtype(tuned_dtype: str, shares: Mapping[str, float], name: str, folder: Path) -> None:
    """Raises BadInput where the sums in a tensor are no numbers of the type in which the tuned weights were kept."""
    if shares[tuned_dtype] >= _SHARE_OF_DTYPE:
        return
    what = (
        f"of the sums in `{name}` {shares[tuned_dtype]:.1%} are {tuned_dtype}, "
        "which `tuned_dtype` says they were kept in"
    )
    other = next((half for half, share in shares.items() if share >= _SHARE_OF_DTYPE), None)
    if other is not None:
        raise BadInput(f"{what}: {shares[other]:.1%} are {other}", str(folder), f'write tuned_dtype="{other}"')
    raise BadInput(
        f"{what}: the diff was made with other weights",
        str(folder),
        f"{_ANOTHER_BASE}; or leave `tuned_dtype` out, where it was a guess",
    )


def _mean_row(rows: torch.Tensor) -> torch.Tensor:
    total = np.zeros(rows.shape[1], dtype=np.float64)
    for row in rows.numpy():  # in this order, whatever the machine
        total += row
    return torch.from_numpy((total / rows.shape[0]).astype(np.float32))[None]


def _check_architecture(base: Mapping[str, Any], diff: Mapping[str, Any], folder: Path) -> None:
    for name in _ARCHITECTURE:
        if name in base and name in diff and base[name] != diff[name]:
            raise BadInput(
                f"{name} is {diff[name]} in the diff and {base[name]} in the base", str(folder), _ANOTHER_BASE
            )


def _check_names(diff: Iterable[str], base: Iterable[str], folder: Path) -> None:
    diff, base = set(diff), set(base)
    for lacks, names in (("the base", diff - base), ("the diff", base - diff)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise BadInput(f"{lacks} has no tensor `{min(names)}`{more}", str(folder), _ANOTHER_BASE)


def _choose_tokenizer(folders: Mapping[str, Path | None]) -> tuple[str, Path]:
    """Whose tokenizer, and its folder: the first that is there; no other may give one of its tokens another id."""
    there = {
        whose: folder
        for whose, folder in folders.items()
        if folder is not None and has_tokenizer(path.name for path in folder.iterdir())
    }
    if not there:
        raise BadInput(
            "neither base nor diff has `tokenizer.json` or `vocab.json`",
            str(folders["diff"]),
            "give the tuned model a `tokenizer`",
        )
    (whose, chosen), *others = there.items()
    vocabulary = _vocabulary(chosen)
    for other, folder in others:
        for token, token_id in sorted(_vocabulary(folder).items()):
            if vocabulary.get(token, token_id) != token_id:
                raise BadInput(
                    f"`{token}` is {vocabulary[token]} in the tokenizer of {whose}, and {token_id} in that of {other}",
                    str(chosen),
                    "name the base model, and the tokenizer, that the diff was made with",
                )
    return whose, chosen


def _vocabulary(folder: Path) -> dict[str, int]:
    return load_tokenizer(folder).names.get_vocab(with_added_tokens=True)


def _write_tokenizer(folder: Path, out: Path, template: Template, rows: int | None) -> None:
    for path in sorted(folder.iterdir()):
        if path.name in TOKENIZER_FILES:
            shutil.copyfile(path, out / path.name)
    tokenizer = load_tokenizer(out)
    if rows is not None and tokenizer.vocabulary_size > rows:
        raise BadInput(
            f"the tokenizer has {tokenizer.vocabulary_size:,} tokens, and the model {rows:,} embeddings",
            str(folder),
            "give the tuned model the `tokenizer` it was taught with",
        )
    if template == "tulu":
        write_tulu_template(out)
    else:
        load_own_template(out, tokenizer)


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "one number"
