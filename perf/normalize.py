"""Normalizing all real files of a mirror, against the same conversion through `datasets.map`; and five million rows.

Each case is a process of its own, so that its peak memory is its own; both start with their libraries imported. Ours
is the stage's own code, from the raw files to `conversations.parquet`. The peer loads the files as `datasets` does,
calls the same converter in `map` in one process, by batches, and writes Parquet its own way; rows that its loaders
cannot hold unchanged (trees, archives) come from our reader, as JSON texts. What both wrote is compared.

Needs the mirror (TULU_MIRROR), which says by hash which datasets it holds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tulu_pipeline.models.tiny import write_tokenizer
from tulu_pipeline.raw.readers import read_json_arrays, read_json_lines, read_tab_separated
from tulu_pipeline.registry import Registry
from tulu_pipeline.specs.dataset import Dataset, RawRow, RowDropped, check_conversation

SEED = 42
MAP_SETTINGS = {"batched": True, "batch_size": 1000, "num_proc": None}
SYNTHETIC = "synthetic"


def all_datasets() -> Iterator[Dataset]:
    """Every dataset and every variant."""
    for dataset in Registry("dataset", "tulu_pipeline.datasets", "DATASET", Dataset).all():
        yield dataset
        yield from (dataset.variant(name) for name in dataset.variants)


def held(mirror: Path) -> dict[str, dict[str, Path]]:
    """Files by source name of each dataset that the mirror holds whole; of variants with the same files, the first."""
    index = {entry["sha256"]: mirror / entry["path"] for entry in json.loads((mirror / "MANIFEST.json").read_text())}
    found: dict[str, dict[str, Path]] = {}
    for dataset in all_datasets():
        hashes = {name: getattr(source, "sha256", None) for name, source in dataset.sources.items()}
        files = {name: index[sha256] for name, sha256 in hashes.items() if sha256 in index}
        if files and len(files) == len(hashes) and files not in found.values():
            found[dataset.name] = files
    return found


def ours(dataset: Dataset, files: Mapping[str, Path], folder: Path, tokenizer: Path) -> Callable[[], int]:
    """The stage, ready to run; it says how many rows there were."""
    import pyarrow as pa
    import pyarrow.parquet

    from tasks.normalize import NORMALIZE, NormalizeParams
    from tulu_pipeline.artifacts.stage import Job, RunContext
    from tulu_pipeline.profile import Profile
    from tulu_pipeline.settings import read_settings

    raw, out = folder / "raw", folder / "out"
    raw.mkdir()
    out.mkdir()
    for name, path in files.items():
        (raw / name).symlink_to(path)
    job = Job(
        name=f"normalize[{dataset.name}]",
        params=NormalizeParams(dataset=dataset.name, seed=SEED, definition=dataset),
        inputs={"raw": raw, "tokenizer": tokenizer},
        sources={},
        out=out,
        work=folder,
        publish=lambda metrics: None,
    )
    pa.array(["x"])  # imports pandas where that is installed, as `datasets` does too
    context = RunContext(profile=Profile(), settings=read_settings())
    return lambda: int(NORMALIZE.run(job, context)["rows"])  # type: ignore[call-overload,index]


def peer(dataset: Dataset, files: Mapping[str, Path], folder: Path, tokenizer: Path) -> Callable[[], int]:
    """The same through `datasets`, ready to run."""
    import datasets

    from tulu_pipeline.chat.draw import RowStreams
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    streams = RowStreams(SEED, dataset.name)
    counter = load_tokenizer(tokenizer).count_tokens if dataset.splits_by_tokens else None
    messages = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("dataset", "id")}
        | {"messages": messages}
        | {name: datasets.Value("string") for name in ("license", "language")}
    )

    def convert(batch: Mapping[str, Sequence[Any]], indices: Sequence[int], prefix: str) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {name: [] for name in features}
        for place, index in enumerate(indices):
            for row in split(raw_row(batch, place, index, prefix)):
                try:
                    conversation = dataset.convert(row, streams.of(row.row_id))
                    check_conversation(conversation)
                except RowDropped:
                    continue
                columns["dataset"].append(dataset.name)
                columns["id"].append(conversation.id)
                columns["messages"].append([{"role": m.role, "content": m.content} for m in conversation.messages])
                columns["license"].append(conversation.license)
                columns["language"].append(conversation.language)
        return columns

    def raw_row(batch: Mapping[str, Sequence[Any]], place: int, index: int, prefix: str) -> RawRow:
        if "raw_row" in batch:
            return RawRow(*json.loads(batch["raw_row"][place]))
        if prefix:
            return RawRow(f"{prefix}_{index}", prefix, batch["text"][place].split("\t"))
        return RawRow(str(index), "", {name: column[place] for name, column in batch.items()})

    def split(row: RawRow) -> Iterator[RawRow]:
        if dataset.split is None:
            yield row
        else:
            yield from (part for part in dataset.split(row, counter) if isinstance(part, RawRow))

    def run() -> int:
        loaded = dict(_loaded(dataset, files, str(folder / "cache")))
        mapped = [
            rows.map(
                convert,
                with_indices=True,
                remove_columns=rows.column_names,
                features=features,
                fn_kwargs={"prefix": prefix},
                **MAP_SETTINGS,
            )
            for prefix, rows in loaded.items()
        ]
        datasets.concatenate_datasets(mapped).to_parquet(folder / "map.parquet")
        return sum(len(rows) for rows in loaded.values())

    return run


def _loaded(dataset: Dataset, files: Mapping[str, Path], cache: str) -> Iterator[tuple[str, Any]]:
    """(what row ids begin with, rows): by `datasets`' own loaders where these keep the rows as they are."""
    import datasets

    paths = {name: str(path) for name, path in files.items()}
    if dataset.read is read_tab_separated:
        for name, path in paths.items():
            options = {"keep_linebreaks": False, "cache_dir": cache}
            yield Path(name).stem, datasets.load_dataset("text", data_files=path, split="train", **options)
    elif dataset.read in (read_json_arrays, read_json_lines) and dataset.draw is None and _is_flat(dataset, files):
        yield "", datasets.load_dataset("json", data_files=list(paths.values()), split="train", cache_dir=cache)
    else:
        kwargs = {"name": dataset.name, "paths": paths}
        yield "", datasets.Dataset.from_generator(_raw_rows, gen_kwargs=kwargs, cache_dir=cache)


def _is_flat(dataset: Dataset, files: Mapping[str, Path]) -> bool:
    first = next(row for row in dataset.read(files) if isinstance(row, RawRow))
    return isinstance(first.value, dict) and not any(isinstance(part, list | dict) for part in first.value.values())


def _raw_rows(name: str, paths: Mapping[str, str]) -> Iterator[dict[str, str]]:
    from tulu_pipeline.raw.strata import drawn

    dataset, files = _dataset(name), {source: Path(path) for source, path in paths.items()}
    rows = dataset.read(files)
    if dataset.draw is not None:
        rows = drawn(lambda: dataset.read(files), dataset.draw, seed=SEED, dataset=name)
    for row in rows:
        if isinstance(row, RawRow):
            yield {"raw_row": json.dumps([row.row_id, row.where, row.value, row.part])}


def _dataset(name: str) -> Dataset:
    if name == SYNTHETIC:
        from tulu_pipeline.datasets.self_instruct import DATASET

        return DATASET
    return next(dataset for dataset in all_datasets() if dataset.name == name)


def write_synthetic(path: Path, rows: int) -> None:
    """Lines of an instruction, an input and an output, of many lengths, no two alike."""
    words = ("count", "the", "apples", "of", "every", "second", "tree", "before", "läßt", "noon")
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            text = " ".join(words[number // 10**place % 10] for place in range(1 + number * 7919 % 13))
            row = {"instruction": f"{number}: {text}", "input": text[: number % 40], "output": f"{text} {number}"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def case(kind: str, name: str, files: Mapping[str, str], folder: Path, tokenizer: Path) -> dict[str, Any]:
    """Run one case in this process."""
    make = ours if kind == "ours" else peer
    run = make(_dataset(name), {source: Path(path) for source, path in files.items()}, folder, tokenizer)
    started = time.perf_counter()
    rows = run()
    seconds = time.perf_counter() - started
    # Not getrusage: its peak of a new process includes what the parent had when it made it.
    status = Path("/proc/self/status").read_text()
    peak_kib = int(status.partition("VmHWM:")[2].split()[0])
    return {"rows": rows, "seconds": seconds, "peak_mib": peak_kib / 1024}


def in_child(kind: str, name: str, files: Mapping[str, Path], folder: Path, tokenizer: Path) -> dict[str, Any]:
    """Run one case in a process of its own, in a fresh folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request = [kind, name, {source: str(path) for source, path in files.items()}, str(folder), str(tokenizer)]
    env = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_DATASETS_OFFLINE": "1"}
    command = [sys.executable, "-m", "perf.normalize", "--case", json.dumps(request)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env, text=True).stdout
    result: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return result


def same_conversations(folder: Path, name: str) -> bool:
    """Whether both wrote the same conversations in the same order."""
    import pyarrow.parquet as pq

    pairs = zip(
        *(
            (row for batch in pq.ParquetFile(path).iter_batches(2000) for row in batch.to_pylist())
            for path in (folder / "ours" / "out" / "conversations.parquet", folder / "map" / "map.parquet")
        ),
        strict=True,
    )
    return all(one == other for one, other in pairs)


def compare(name: str, files: Mapping[str, Path], folder: Path, tokenizer: Path, repeat: int) -> dict[str, Any]:
    """The best of several runs of each, taken in turn; fails where they do not agree."""
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "map": []}
    for _ in range(repeat):
        for kind, done in runs.items():
            done.append(in_child(kind, name, files, folder / kind, tokenizer))
    if not same_conversations(folder, name):
        raise SystemExit(f"{name}: the peer made other conversations")
    best = {kind: min(done, key=lambda run: run["seconds"]) for kind, done in runs.items()}
    result = {
        "rows": best["ours"]["rows"],
        "ours_rows_per_second": round(best["ours"]["rows"] / best["ours"]["seconds"]),
        "map_rows_per_second": round(best["ours"]["rows"] / best["map"]["seconds"]),
        "ratio_vs_map": round(best["map"]["seconds"] / best["ours"]["seconds"], 2),
        "ours_peak_mib": round(best["ours"]["peak_mib"]),
        "map_peak_mib": round(best["map"]["peak_mib"]),
    }
    print(f"{name}: {json.dumps(result)}", flush=True)
    return result | {"seconds": {kind: run["seconds"] for kind, run in best.items()}}


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the synthetic dataset; 0 leaves it out")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; the best counts")
    parser.add_argument("--only", nargs="+", help="names of datasets; all that the mirror holds by default")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        kind, name, files, folder, tokenizer = json.loads(options.case)
        print(json.dumps(case(kind, name, files, Path(folder), Path(tokenizer))))
        return
    mirror = os.environ.get("TULU_MIRROR")
    if not mirror:
        raise SystemExit("set TULU_MIRROR to a mirror of the published data sets")
    print(f"peer: datasets.map with {json.dumps(MAP_SETTINGS)}, fresh cache, same converter", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = folder / "tokenizer"
        write_tokenizer(tokenizer, vocabulary=2048, all_words=1)
        measured = {
            name: compare(name, files, folder / "case", tokenizer, options.repeat)
            for name, files in held(Path(mirror).resolve()).items()
            if not options.only or name in options.only
        }
        best = [result.pop("seconds") for result in measured.values()]
        seconds = {kind: sum(one[kind] for one in best) for kind in ("ours", "map")}
        rows = sum(result["rows"] for result in measured.values())
        total = {
            "datasets": measured,
            "rows": rows,
            "ours_rows_per_second": round(rows / seconds["ours"]),
            "map_rows_per_second": round(rows / seconds["map"]),
            "ratio_vs_map": round(seconds["map"] / seconds["ours"], 2),
            "ours_peak_mib": max(result["ours_peak_mib"] for result in measured.values()),
            "map_peak_mib": max(result["map_peak_mib"] for result in measured.values()),
        }
        if options.rows:
            lines = folder / "synthetic.jsonl"
            write_synthetic(lines, options.rows)
            many = in_child("ours", SYNTHETIC, {"all_instances_82K.jsonl": lines}, folder / "many", tokenizer)
            total |= {
                "synthetic_rows": many["rows"],
                "synthetic_rows_per_second": round(many["rows"] / many["seconds"]),
                "synthetic_peak_mib": round(many["peak_mib"]),
            }
    print(json.dumps(total))


if __name__ == "__main__":
    main()
