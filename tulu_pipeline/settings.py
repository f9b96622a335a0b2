"""The one module that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
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
        wandb_project: where Weights & Biases is told of trainings (`WANDB_PROJECT`), or None; and under which group
            (`WANDB_RUN_GROUP`). Its client reads its other variables itself.
        mlflow_tracking_uri: where MLflow is (`MLFLOW_TRACKING_URI`), or None; and in which experiment
            (`MLFLOW_EXPERIMENT_NAME`).
    """

    store: str
    mirror: str | None
    sources_lock: Path
    hub_endpoint: str
    hub_token: str | None
    color: bool
    wandb_project: str | None = None
    wandb_group: str | None = None
    mlflow_tracking_uri: str | None = None
    mlflow_experiment: str = "tulu_pipeline"


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
        wandb_project=(env.get("WANDB_PROJECT") or None) if env.get("WANDB_MODE") != "disabled" else None,
        wandb_group=env.get("WANDB_RUN_GROUP") or None,
        mlflow_tracking_uri=env.get("MLFLOW_TRACKING_URI") or None,
        mlflow_experiment=env.get("MLFLOW_EXPERIMENT_NAME") or "tulu_pipeline",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderAccess:
    """Where a provider of models is reached, and with which key; execution only, and never written anywhere.

    Attributes:
        base_url: with the version, such as `https://api.openai.com/v1`; may hold credentials.
        key: "" for a server that asks for none.
        prices: a table of prices that goes before the project's (`TULU_API_PRICES`), or None.
    """

    base_url: str = field(repr=False)
    key: str = field(repr=False)
    prices: Path | None = None


def provider_access(provider: str) -> ProviderAccess:
    """How `provider` is reached, by `<PROVIDER>_BASE_URL` and `<PROVIDER>_API_KEY`; OpenAI's address is known."""
    prefix = provider.upper().replace("-", "_")
    base_url = os.environ.get(f"{prefix}_BASE_URL") or ("https://api.openai.com/v1" if provider == "openai" else "")
    prices = os.environ.get("TULU_API_PRICES")
    return ProviderAccess(
        base_url=base_url.rstrip("/"),
        key=os.environ.get(f"{prefix}_API_KEY", ""),
        prices=Path(prices) if prices else None,
    )


def tracking_environment() -> dict[str, str]:
    """Variables of the processes that tell trackers of a training: they try again themselves, so clients need not."""
    ours = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15", "WANDB_SILENT": "true"}
    return {name: value for name, value in ours.items() if name not in os.environ}


def child_environment(**overrides: str) -> dict[str, str]:
    """The environment a child process gets: ours, with `overrides` on top.

    Children may keep compiled bytecode whatever the caller's shell says: without it each engine and each rank
    compiles torch anew, 15 s of CPU.
    """
    environment = {**os.environ, **overrides}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedRank:
    """Which rank this process is, as DeepSpeed's launcher and torchrun say it.

    Attributes:
        rank: over all nodes.
        local_rank: on its node; the number of its device.
        world_size: ranks over all nodes.
    """

    rank: int
    local_rank: int
    world_size: int


def launched_rank() -> LaunchedRank:
    """Which rank this process is (`RANK`, `LOCAL_RANK`, `WORLD_SIZE`); the only one where no launcher says so."""
    env = os.environ
    return LaunchedRank(
        rank=int(env.get("RANK", "0")),
        local_rank=int(env.get("LOCAL_RANK", "0")),
        world_size=int(env.get("WORLD_SIZE", "1")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmAllocation:
    """The job of Slurm that this process is in.

    Attributes:
        nodes: machines of the job.
        node_list: their names, in Slurm's own short form.
        node: the name of this one, "" outside the job's machines.
        task: the number of this process among those that `srun` started; None where it started none.
    """

    nodes: int
    node_list: str
    node: str
    task: int | None


def slurm_allocation() -> SlurmAllocation | None:
    """The job of Slurm that this process is in; None where it is in none."""
    env = os.environ
    nodes = env.get("SLURM_JOB_NUM_NODES") or env.get("SLURM_NNODES")
    if not env.get("SLURM_JOB_ID") or not nodes:
        return None
    return SlurmAllocation(
        nodes=int(nodes),
        node_list=env.get("SLURM_JOB_NODELIST", ""),
        node=env.get("SLURMD_NODENAME", ""),
        task=int(env["SLURM_PROCID"]) if "SLURM_PROCID" in env else None,
    )


# What steers libraries on every node alike. No credentials: those are each machine's own.
_SHARED_VARIABLES = ("NCCL_", "UCX_", "FI_", "GLOO_", "TORCH_", "PYTHON", "CUDA_DEVICE_ORDER", "LD_LIBRARY_PATH")


_WHERE_CODE_IS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")  # each node has found its own


def environment_for_nodes() -> dict[str, str]:
    """The variables that ranks on other machines get from this one."""
    return shared_variables(dict(os.environ))


def shared_variables(environment: dict[str, str]) -> dict[str, str]:
    """Those of `environment` that one node may take from another."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_SHARED_VARIABLES) and name not in _WHERE_CODE_IS
    }


def visible_gpus() -> int | None:
    """How many GPUs `CUDA_VISIBLE_DEVICES` leaves visible, as CUDA reads it; None where it is not set."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    devices = (device.strip() for device in value.split(","))
    return sum(1 for _ in takewhile(lambda device: device.isdigit() or device.startswith(("GPU-", "MIG-")), devices))
