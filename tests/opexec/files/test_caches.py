"""The cache folder, files that appear at once, and locks."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from opexec.errors import BuildError
from opexec.files import caches

REPOSITORY = Path(__file__).parents[3]


def test_the_root_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPEXEC_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert caches.root() == tmp_path / ".cache" / "opexec"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert caches.root() == tmp_path / ".cache" / "opexec"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert caches.root() == Path("/xdg/opexec")
    monkeypatch.setenv("OPEXEC_CACHE", "~/mine")
    assert caches.root() == tmp_path / "mine"
    assert not (tmp_path / "mine").exists()
    assert (
        caches.folder("a", "b") == tmp_path / "mine" / "a" / "b" and (tmp_path / "mine" / "a" / "b").is_dir()
    )


def test_a_folder_that_cannot_be_made_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BuildError, match=r"file/cache/x, but it cannot be made: .*Set OPEXEC_CACHE"):
        caches.folder("x")


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    assert caches.read_json(path) is None
    caches.write_json(path, {"a": 1})
    assert caches.read_json(path) == {"a": 1}
    with pytest.raises(TypeError):
        caches.write_json(path, object())
    with pytest.raises(UnicodeEncodeError):
        caches.write_text(path, "\ud800" * 100000)
    assert caches.read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(BuildError, match="cannot write .*none/file: .* set OPEXEC_CACHE"):
        caches.write_text(tmp_path / "none" / "file", "")
    path.write_text('{"a": 1')
    assert caches.read_json(path) is None


def test_a_password_is_for_the_user_alone(tmp_path: Path) -> None:
    for text, private in (
        ("x @ https://token@example.org/x.whl", True),
        ("x @ git+ssh://me:pass@example.org/x.git", True),
        ("x @ git+ssh://git@example.org/x.git@v1", False),
        ("x==1", False),
    ):
        caches.write_text(tmp_path / "file", text)
        assert ((tmp_path / "file").stat().st_mode & 0o077 == 0) == private, text


def test_without_a_home_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPEXEC_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # as where a container is run under any number
    with pytest.raises(BuildError, match="HOME is not set.*Set OPEXEC_CACHE"):
        caches.folder("interpreters")


def test_a_lock_that_cannot_be_opened_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="expected to lock .*absent.*Set OPEXEC_CACHE|set OPEXEC_CACHE"):
        with caches.locked(tmp_path / "absent" / "lock", lambda holder: None):
            raise AssertionError


def test_digests_tell_values_apart() -> None:
    assert caches.digest({"a": 1, "b": [2]}) == caches.digest({"b": [2], "a": 1})
    values = ["", [], {}, ["a", "b"], ["ab"], [["a"], "b"], {"a": "b"}, None, 1, "1"]
    assert len({caches.digest(value) for value in values}) == len(values)


def never(holder: str) -> None:
    raise AssertionError(f"waits for {holder}")


def test_threads_exclude_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waits = threading.Event()
    order: list[str] = []

    def second() -> None:
        with caches.locked(path, lambda holder: (order.append(holder), waits.set())):
            order.append("second")

    with caches.locked(path, never):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(60)
        order.append("first")
    thread.join()
    assert order == [f"process {os.getpid()}", "first", "second"]


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys, pathlib; from opexec.files import caches\n"
        "with caches.locked(pathlib.Path(sys.argv[1]), print): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        told: list[str] = []

        def kill(who: str) -> None:
            told.append(who)
            holder.kill()

        with caches.locked(path, kill):
            assert told == [f"process {holder.pid}"]


def test_one_that_inherits_the_descriptor_keeps_the_lock_after_its_holder_died(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    program = (
        "import sys, pathlib, subprocess, os, signal; from opexec.files import caches\n"
        "with caches.locked(pathlib.Path(sys.argv[1]), print) as lock:\n"
        "    subprocess.Popen([sys.executable, '-c', 'import sys; print(1, flush=True); sys.stdin.read()'], pass_fds=[lock])\n"
        "    signal.pause()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "1\n"
        holder.kill()
        holder.wait()
        told: list[str] = []

        def end(who: str) -> None:
            told.append(who)
            holder.stdin.close()  # the heir reads it too, and ends

        with caches.locked(path, end):
            assert told == [f"process {holder.pid}"]


def test_the_holder_lets_go_though_a_forked_process_has_the_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with caches.locked(path, never) as lock:
        heir = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    with heir, caches.locked(path, never):
        pass
