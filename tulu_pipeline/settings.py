"""The one module that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says; execution only, never part of a key.

    Attributes:
        store: root of the artifact store, a path or fsspec URL (`TULU_STORE`, else `./store`).
        mirror: where pinned files can be had by hash, an fsspec URL (`TULU_MIRROR`), or None.
        sources_lock: file that remembers hashes trusted on first download (`TULU_SOURCES_LOCK`).
        hub_endpoint: base URL of the model and dataset hub (`HF_ENDPOINT`).
        hub_token: access token for gated files (`HF_TOKEN`), or None.
        color: False when `NO_COLOR` is set.
    """

    store: str
    mirror: str | None
    sources_lock: Path
    hub_endpoint: str
    hub_token: str | None
    color: bool


def read_settings(store: str | None = None) -> Settings:
    """Settings from the environment; `store` (the `--store` option) wins over `TULU_STORE`."""
    env = os.environ
    return Settings(
        store=store or env.get("TULU_STORE") or "store",
        mirror=env.get("TULU_MIRROR") or None,
        sources_lock=Path(env.get("TULU_SOURCES_LOCK") or "sources.lock"),
        hub_endpoint=(env.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"),
        hub_token=env.get("HF_TOKEN") or None,
        color="NO_COLOR" not in env,
    )


def child_environment(**overrides: str) -> dict[str, str]:
    """The environment a child process gets: ours, with `overrides` on top.

    Children may keep compiled bytecode whatever the caller's shell says: without it each engine and each rank
    compiles torch anew, 15 s of CPU.
    """
    environment = {**os.environ, **overrides}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def visible_gpus() -> int | None:
    """How many GPUs `CUDA_VISIBLE_DEVICES` leaves visible, as CUDA reads it; None where it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    devices = (device.strip() for device in value.split(","))
    return sum(1 for _ in takewhile(lambda device: device.isdigit() or device.startswith(("GPU-", "MIG-")), devices))
