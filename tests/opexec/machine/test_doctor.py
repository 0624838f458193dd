"""What `doctor` finds: each limit with the change that helps, on facts made up here; and the facts of this machine itself."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from opexec.environments import interpreters
from opexec.machine import doctor
from opexec.machine import facts as machine
from opexec.machine.devices import Gpu
from opexec.machine.doctor import BROKEN, GOOD, LIMIT, Finding

GIB = 1 << 30
KERNEL = machine.Kernel("linux", "6.8", "x86_64", ())
CORES = machine.Cores(present=8, affinity=8, quota=None)
MEMORY = machine.SharedMemory(8 * GIB, 8 * GIB, True, True, 10 * GIB, 16 * GIB, None, None)
CACHE = machine.Cache(Path("/cache"), None, 50 * GIB, 3, 1)
GPU = Gpu(0, "GPU-1", "H100")


def worst(findings: list[Finding]) -> Finding:
    return max(findings, key=lambda finding: (GOOD, LIMIT, BROKEN).index(finding.level))


@pytest.mark.parametrize(
    ("judge", "seen", "level", "fact", "cure"),
    [
        (doctor._judge_kernel, KERNEL, GOOD, "linux 6.8 on x86_64", None),
        (doctor._judge_kernel, replace(KERNEL, system="darwin"), BROKEN, "darwin", "runs on Linux"),
        (doctor._judge_kernel, replace(KERNEL, architecture="riscv64"), BROKEN, "riscv64", "x86-64 and aarch64"),
        (doctor._judge_kernel, replace(KERNEL, missing=("pidfd_open",)), BROKEN, "without pidfd_open", "Linux 5.4"),
        (doctor._judge_cores, CORES, GOOD, "8 present, 8 usable", None),
        (doctor._judge_cores, machine.Cores(8, 1, None), LIMIT, "1 usable", "taskset"),
        (doctor._judge_cores, machine.Cores(1, 1, None), LIMIT, "1 present", "two cores or more"),
        (doctor._judge_cores, machine.Cores(8, 8, 1.5), LIMIT, "1.5 by the control group", "--cpus"),
        (doctor._judge_cores, machine.Cores(8, 8, 4.0), GOOD, "4 by the control group", None),
        (doctor._judge_shared_memory, MEMORY, GOOD, "8.00 GiB of it free", None),
        (doctor._judge_shared_memory, replace(MEMORY, mount_size=64 << 20, mount_free=60 << 20), LIMIT, "64.0 MiB", "--shm-size"),
        (doctor._judge_shared_memory, replace(MEMORY, mount_size=None, mount_free=None, mount_writable=False), LIMIT, "no /dev/shm", "mount"),
        (doctor._judge_shared_memory, replace(MEMORY, mount_writable=False, memfd=False), BROKEN, "may not write", "Enlarge"),
        (doctor._judge_shared_memory, replace(MEMORY, memfd=False), LIMIT, "no memfd", "seccomp"),
        (doctor._judge_memory, MEMORY, GOOD, "10.0 GiB of it available", None),
        (doctor._judge_memory, replace(MEMORY, available=GIB // 4), LIMIT, "256 MiB of it available", "Run less"),
        (doctor._judge_memory, replace(MEMORY, group_limit=2 * GIB, group_left=GIB // 8), LIMIT, "128 MiB left", "--memory"),
        (doctor._judge_memory, replace(MEMORY, group_limit=2 * GIB, group_left=GIB), GOOD, "allows 2.00 GiB", None),
        (doctor._judge_descriptors, None, GOOD, "any number", None),
        (doctor._judge_descriptors, 1024, GOOD, "1,024", None),
        (doctor._judge_descriptors, 64, LIMIT, "64", "ulimit -n"),
        (doctor._judge_gpus, machine.Gpus((), 0, None), GOOD, "no NVIDIA GPU", None),
        (doctor._judge_gpus, machine.Gpus((GPU,), 1, None), GOOD, "cuda:0 H100", None),
        (doctor._judge_gpus, machine.Gpus((GPU,), 0, None), LIMIT, "leaves 0", "Unset"),
        (doctor._judge_gpus, machine.Gpus((), 0, "driver mismatch"), LIMIT, "driver mismatch", "nvidia-smi"),
        (doctor._judge_uv, doctor._Uv("0.5", "/bin/uv", None), GOOD, "0.5", None),
        (doctor._judge_uv, doctor._Uv(None, None, "gone"), BROKEN, "gone", "pip install"),
        (doctor._judge_cache, CACHE, GOOD, "3 environments", None),
        (doctor._judge_cache, replace(CACHE, free=GIB), LIMIT, "1.00 GiB free", "opexec env prune"),
        (doctor._judge_cache, replace(CACHE, problem="read-only"), BROKEN, "read-only", "OPEXEC_CACHE"),
        (doctor._judge_pythons, None, LIMIT, "not looked for", "Mend the cache"),
        (doctor._judge_pythons, (), LIMIT, "no Python", "uv python install"),
        (doctor._judge_pythons, (doctor._Python("2.7.18", "/p", "cpython", False, None, False),), LIMIT, "no Python", "3.7"),
        (doctor._judge_pythons, (doctor._Python("3.9.1", "/p", "cpython", False, None, True),), GOOD, "3.9", None),
    ],
)  # fmt: skip
def test_what_is_found_and_what_to_change(judge, seen, level, fact, cure) -> None:  # type: ignore[no-untyped-def]
    findings = list(judge(seen))
    finding = worst(findings)
    assert finding.level == level
    assert fact in " ".join(each.fact for each in findings)
    if cure is None:
        assert all(each.cure is None for each in findings)
    else:
        assert finding.cure is not None and cure in finding.cure and "\n" not in finding.cure


def test_an_interpreter_that_cannot_be_a_worker_says_why() -> None:
    old = doctor._Python("3.6.15", "/old", "cpython", False, None, False)
    free = doctor._Python("3.13.0", "/free", "cpython", True, None, False)
    facts = [finding.fact for finding in doctor._judge_pythons((old, free))]
    assert any("3.6.15 (/old): too old for workers, which need 3.7" in fact for fact in facts)
    assert any("3.13.0 free-threaded (/free): only taken by its path" in fact for fact in facts)


def test_what_was_passed_over_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", "/pyenv")

    def passed_over(path: str, problem: str) -> doctor._Python:
        return doctor._Python(None, path, None, False, None, False, problem)

    good = doctor._Python("3.9.1", "/p", "cpython", False, None, True)
    of_pyenv, shim, other, ancient, idle = (
        passed_over(
            "/pyenv/versions/3.8.1/bin/python3.8", "it ended with status 127: libpython3.8.so: cannot open"
        ),
        passed_over(
            "/pyenv/shims/python3", "it ended with status 1: pyenv: version `3.9.9' is not installed"
        ),
        passed_over("/usr/bin/python3", "/usr/bin/python3 is a link to /gone, which does not exist"),
        passed_over("/usr/bin/python2", interpreters.TOO_OLD_TO_SAY),
        passed_over(
            "/pyenv/shims/python3.7", "it ended with status 127: pyenv: python3.7: command not found"
        ),
    )
    findings = list(doctor._judge_pythons((good, of_pyenv, shim, other, ancient, idle)))
    limits = [(each.fact, each.cure or "") for each in findings if each.level == LIMIT]
    assert [fact for fact, _ in limits] == [
        f"{each.path} does not work: {each.problem}" for each in (of_pyenv, shim, other)
    ]
    assert "pyenv install --force 3.8.1" in limits[0][1] and "pyenv uninstall 3.8.1" in limits[0][1]
    assert "pyenv global VERSION" in limits[1][1] and "Install it anew, or remove it." in limits[2][1]
    facts = [each.fact for each in findings if each.level == GOOD]
    assert "/usr/bin/python2: too old for workers, which need 3.7" in facts
    assert facts[-1].startswith("/pyenv/shims/python3.7: shims of versions that are not selected here;")


def test_this_machine_is_described_in_json() -> None:
    report = doctor.examine()
    assert report.works, report.findings
    facts = json.loads(json.dumps(report.facts))
    assert facts["cores"]["affinity"] == len(os.sched_getaffinity(0))
    assert facts["memory"]["available"] < facts["memory"]["total"]
    assert facts["descriptors"] is None or facts["descriptors"] > 0
    assert any(each["worker"] for each in facts["interpreters"])
    assert {finding.topic for finding in report.findings} == set(facts)


def test_shared_memory_is_that_of_the_mount(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    seen = machine.shared_memory(tmp_path)
    assert seen.mount_size == status.f_blocks * status.f_frsize and seen.mount_writable
    absent = machine.shared_memory(tmp_path / "absent")
    assert absent.mount_size is None and absent.mount_free is None and not absent.mount_writable


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Makes an nvidia-smi that prints a text and ends with a status."""
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(text: str, status: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


def test_gpus_are_those_that_loading_finds(
    nvidia_smi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    nvidia_smi("GPU 0: NVIDIA A (UUID: GPU-aa)\nGPU 1: NVIDIA B (UUID: GPU-bb)")
    assert [gpu.name for gpu in machine.gpus().found] == ["NVIDIA A", "NVIDIA B"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert machine.gpus().visible == 1


def test_a_driver_that_fails_is_told(nvidia_smi) -> None:  # type: ignore[no-untyped-def]
    nvidia_smi("Failed to initialize NVML: Driver/library version mismatch", 18)
    assert "version mismatch" in (machine.gpus().problem or "")


def test_a_driver_without_its_tool_is_told_and_none_at_all_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus(driver=tmp_path / "version") == machine.Gpus((), 0, None)
    (tmp_path / "version").write_text("NVRM version: 570\n")
    assert machine.gpus(driver=tmp_path / "version").problem is not None


def test_a_cache_that_cannot_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "not" / "there" / "yet"))
    assert machine.cache().problem is None and not (tmp_path / "not").exists()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "file" / "cache"))
    assert "is not a folder" in (machine.cache().problem or "")


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPEXEC_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    (finding,) = doctor._judge_cache(machine.cache())
    assert finding.level == BROKEN and "HOME is not set" in finding.fact
