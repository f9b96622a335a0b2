"""A profile says how a machine runs, and its mistakes are told with their place."""

import dataclasses
from pathlib import Path

import pytest

from tulu_pipeline.errors import BadInput, NotFound
from tulu_pipeline.profile import Profile, auto_profile, load_profile, profile_for
from tulu_pipeline.training.estimates.flops import peak_flops

ROOT = Path(__file__).parent.parent.parent


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "mine.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_profile_is_read_by_name_and_by_path(tmp_path: Path) -> None:
    path = write(tmp_path, "ranks = 3\ngpu_memory_share = 1\noffload = true\n")
    wanted = Profile(name="mine", ranks=3, gpu_memory_share=1.0, offload=True)
    assert load_profile("mine", tmp_path) == load_profile(str(path), Path("/nowhere")) == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ranks = ", "broken TOML"),
        (b"name = '\xff'", "broken TOML"),
        ("rank = 2", "unknown key `rank`"),
        ("[ranks]\nx = 1", "`ranks` is {'x': 1}, not a int"),
        ("ranks = 2.0", "`ranks` is 2.0, not a int"),
        ("ranks = true", "`ranks` is True, not a int"),
        ("gpu_memory_share = true", "`gpu_memory_share` is True, not a float"),
        ("offload = 1", "`offload` is 1, not a bool"),
        ("name = 1", "`name` is 1, not a str"),
        ('layout = "global"', "`layout` is `global`"),
        ("ranks = 0", "`ranks` is 0"),
        ("zero_stage = 4", "`zero_stage` is 4"),
        ("gpu_memory_share = 1.5", "`gpu_memory_share` is 1.5"),
        ("lease_stale_seconds = 0.0", "`lease_stale_seconds` is 0.0"),
        ("cpu_slots = -1", "`cpu_slots` is -1"),
        ("gpu_slots = 2", "`gpu_slots` is 2: stages take the first `ranks` GPUs"),
    ],
)
def test_mistake_in_a_profile_is_told_with_file_and_fix(tmp_path: Path, text: str | bytes, told: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as mistake:
        load_profile("mine", tmp_path)
    assert told in mistake.value.what
    assert str(path) in mistake.value.where
    assert mistake.value.fix


def test_close_match_of_an_unknown_key_is_told(tmp_path: Path) -> None:
    write(tmp_path, "micro_batch = 2")
    with pytest.raises(BadInput) as mistake:
        load_profile("mine", tmp_path)
    assert "did you mean `micro_batch_conversations`" in mistake.value.fix


def test_unknown_profile_lists_close_matches_first(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(NotFound) as mistake:
        load_profile("mime", tmp_path)
    assert mistake.value.fix.startswith("did you mean `mine`")
    assert "auto" in mistake.value.fix
    assert mistake.value.exit_code == 2


def test_profile_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as mistake:
        load_profile(str(tmp_path / "none.toml"))
    assert str(tmp_path / "none.toml") in mistake.value.what


@pytest.mark.parametrize("path", sorted((ROOT / "deployments" / "profiles").glob("*.toml")), ids=lambda path: path.stem)
def test_profiles_that_come_with_the_project_can_be_read(path: Path) -> None:
    assert load_profile(str(path)).name == path.stem


@pytest.mark.parametrize("path", sorted((ROOT / "deployments" / "profiles").glob("*.toml")), ids=lambda path: path.stem)
def test_a_profile_of_gpus_names_one_whose_peak_and_memory_are_known_so_that_time_can_be_estimated(path: Path) -> None:
    profile = load_profile(str(path))
    assert (peak_flops(profile.gpu) is not None) == (profile.gpu_memory_gib > 0) == (profile.gpu_slots > 0)


@pytest.mark.parametrize("name", [None, "auto"])
def test_profile_fits_the_machine_when_none_is_asked_for(name: str | None) -> None:
    profile = load_profile(name)
    assert profile == auto_profile()
    assert min(profile.slots().values()) >= 1


@pytest.mark.parametrize(
    ("cores", "gpus", "ranks", "threads"), [(96, 8, 8, 12), (12, 1, 1, 12), (2, 4, 4, 1), (8, 0, 2, 4), (1, 0, 1, 1)]
)
def test_ranks_share_all_cores_with_or_without_gpus(cores: int, gpus: int, ranks: int, threads: int) -> None:
    profile = profile_for(cores=cores, gpus=gpus)
    assert (profile.ranks, profile.threads_per_rank) == (ranks, threads)


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_not_counted(hidden: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert auto_profile().name == "auto-cpu"


def test_every_stage_finds_a_slot_even_where_the_profile_gives_none() -> None:
    nothing = dataclasses.replace(Profile(), cpu_slots=0, gpu_slots=0, api_slots=0)
    assert nothing.slots() == {"cpu": 1, "gpu": 1, "api": 1}
