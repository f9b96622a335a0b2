"""`tulu doctor`: what it finds, what it never prints, how it ends."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import TULU, environment

from flows import doctor
from flows.doctor import Check, Diagnosis, diagnose
from tulu_pipeline.sandbox import tiers
from tulu_pipeline.sandbox.probes import Finding
from tulu_pipeline.settings import read_settings

SECRETS = {"HF_TOKEN": "hf_do_not_print_this", "OPENAI_API_KEY": "sk-do-not-print-this"}
no_sandbox = bool(tiers.what_refuses("namespaces") and tiers.what_refuses("bubblewrap"))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("machine")
    variables = environment(**SECRETS, TULU_STORE=str(folder / "store"))
    return subprocess.run([TULU, "doctor", "--json"], cwd=folder, env=variables, capture_output=True, text=True)


@pytest.fixture(scope="module")
def found(told: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(told.stdout)
    return value


def test_it_looks_at_everything_a_stage_may_need(found: dict[str, Any]) -> None:
    checks = {check["name"]: check for check in found["checks"]}
    expected = {"Python", "packages", "GPU", "engine vllm", "engine transformers", "store", "C++ compiler", "Chromium"}
    assert expected | {"ssh", "Slurm", "hub token", "OpenAI key", "sandbox"} <= set(checks)
    assert checks["Python"]["status"] == "ok"
    assert checks["packages"]["status"] == "ok", checks["packages"]
    assert checks["store"]["status"] == "ok"
    assert all(check["detail"] for check in found["checks"])
    assert all(check["fix"] for check in found["checks"] if check["status"] != "ok")


@pytest.mark.skipif(no_sandbox, reason="no sandbox on this machine: see `tulu doctor`")
def test_every_attempt_to_escape_is_listed_and_blocked(found: dict[str, Any]) -> None:
    assert found["sandbox"]["tier"] in tiers.SAFE
    attempts = found["sandbox"]["attempts"]
    assert len(attempts) > 40
    assert [each["name"] for each in attempts if not each["blocked"]] == []


def test_keys_are_known_to_be_there_and_never_printed(told: subprocess.CompletedProcess[str]) -> None:
    checks = {check["name"]: check for check in json.loads(told.stdout)["checks"]}
    assert checks["hub token"]["detail"] == checks["OpenAI key"]["detail"] == "is set"
    assert not any(secret in told.stdout + told.stderr for secret in SECRETS.values())


def test_it_leaves_no_store_behind(told: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    assert not any(Path(word).exists() for word in told.stdout.split() if word.endswith("machine0/store"))
    diagnosed = doctor._store(read_settings(str(tmp_path / "store")))
    assert diagnosed.status == "ok"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/nowhere/store", "/dev/null/store", "ftp://host/store"])
def test_a_store_that_cannot_be_written_is_lacking(place: str) -> None:
    check = doctor._store(read_settings(place))
    assert check.status == "lacks"
    assert check.fix


def test_no_sandbox_is_lacking_and_says_what_would_help(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiers, "what_refuses", lambda tier: f"no {tier} today")
    diagnosed = diagnose(read_settings(str(tmp_path / "store")))
    (sandbox,) = (check for check in diagnosed.checks if check.name == "sandbox")
    assert sandbox.status == "lacks"
    assert "no namespaces today" in sandbox.detail
    assert "bubblewrap" in sandbox.fix
    assert (diagnosed.tier, diagnosed.findings, diagnosed.exit_code) == ("", (), 4)


@pytest.mark.parametrize(
    ("statuses", "code"), [(("ok", "absent"), 0), (("ok", "lacks"), 4), (("escaped", "lacks", "ok"), 1)]
)
def test_the_exit_code_is_that_of_the_worst(statuses: tuple[Any, ...], code: int) -> None:
    checks = tuple(Check(name=status, status=status, detail="") for status in statuses)
    assert Diagnosis(checks=checks, tier="", findings=()).exit_code == code


def test_a_program_that_gets_out_is_told_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tiers, "best_tier", lambda: "namespaces")
    findings = [Finding(name="network", what="connects", blocked=False, detail="succeeded")]
    monkeypatch.setattr("tulu_pipeline.sandbox.probes.probe", lambda tier, progress: iter(findings))
    check, _, _ = doctor._sandbox(lambda done, total: None)
    assert (check.status, check.detail) == ("escaped", "namespaces: network")


def test_a_package_of_another_version_is_named() -> None:
    from packaging.requirements import Requirement

    assert doctor._what_is_wrong(Requirement("pytest>=1")) == ""
    assert doctor._what_is_wrong(Requirement("pytest<1")).endswith("not <1")
    assert doctor._what_is_wrong(Requirement("no-such-package-here")) == "no no-such-package-here"
