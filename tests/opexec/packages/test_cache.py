"""A zip is unpacked once, whole or not at all, whoever else unpacks it and whoever is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from opexec.errors import BuildError, PackageError
from opexec.package import read
from opexec.packages import cache as package_cache
from opexec.packages.draft import repack

from .package_samples import folder_of, manifest_of, sample, zip_of

REPOSITORY = Path(__file__).parents[3]
FILES = sample() | {f"0/data/{index}": os.urandom(100) for index in range(20)}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OPEXEC_CACHE", str(path))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_zip_is_unpacked_once(tmp_path: Path, cache: Path) -> None:
    told: list[str] = []
    package = read(zip_of(tmp_path / "p.zip", FILES))
    first = package.folder(told.append)
    assert told == [f"unpacking p.zip ({len(FILES)} files, 0.0 MB)"]
    assert package.folder(told.append) == first and len(told) == 1
    copy = tmp_path / "copy.zip"
    copy.write_bytes(package.path.read_bytes())
    assert read(copy).folder(told.append) == first and len(told) == 1
    assert contents(first) == FILES
    assert first.parent.parent == cache / "packages" and first.parent.name == package.archive_hash()
    assert not [path for path in (cache / "packages").iterdir() if path.name.startswith(".") or path.suffix]
    assert (first.parent / "used").exists()
    assert {oct(path.stat().st_mode & 0o777) for path in first.rglob("*") if path.is_file()} == {"0o444"}


def test_what_was_cleaned_up_is_unpacked_again(tmp_path: Path) -> None:
    package = read(zip_of(tmp_path / "p.zip", FILES))
    folder = package.folder()
    for damage in (
        lambda: (folder / "0/data/7").unlink(),
        lambda: os.truncate(folder / "0/data/7", 3),
        lambda: (folder.parent / "contents.json").unlink(),
    ):
        kept = open(folder / "0/data/3", "rb")
        damage()
        assert package.folder() == folder and contents(folder) == FILES
        with kept:
            assert kept.read() == FILES["0/data/3"]  # a model that runs keeps its files


def test_threads_that_unpack_at_once_share_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zip_of(tmp_path / "p.zip", FILES)
    unpacked: list[str] = []
    extract = package_cache._extract
    waiting = threading.Event()

    def slow(files: object, name: str, tree: Path) -> str:
        unpacked.append(name)
        assert waiting.wait(60)
        return extract(files, name, tree)  # type: ignore[arg-type]

    monkeypatch.setattr(package_cache, "_extract", slow)
    told: list[str] = []

    def progress(text: str) -> None:
        told.append(text)
        if text.startswith("waiting"):
            waiting.set()

    folders: list[Path] = []
    threads = [threading.Thread(target=lambda: folders.append(read(path).folder(progress))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1 and len(folders) == 4
    assert sorted(unpacked) == sorted(FILES)
    assert any(f"waiting for process {os.getpid()}, which unpacks p.zip" in text for text in told)


def test_processes_that_unpack_at_once_share_one(tmp_path: Path, cache: Path) -> None:
    path = zip_of(tmp_path / "p.zip", FILES)
    program = (
        "import sys; from opexec.package import read\n"
        "package = read(sys.argv[1]); sys.stdin.read()\n"
        "print(package.folder(lambda text: print(text.split()[0])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, path],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    said = [process.stdout.read().split() for process in processes if process.stdout]
    assert all(process.wait() == 0 for process in processes)
    assert sum("unpacking" in words for words in said) == 1
    assert len({words[-1] for words in said}) == 1 and contents(Path(said[0][-1])) == FILES
    assert [entry.name for entry in (cache / "packages").iterdir() if entry.name != "hashes"] == [
        Path(said[0][-1]).parent.name
    ]


def test_one_that_is_killed_leaves_nothing_for_long(tmp_path: Path, cache: Path) -> None:
    path = zip_of(tmp_path / "p.zip", FILES)
    program = (
        "import sys, signal; from opexec.packages import cache as package_cache; from opexec.package import read\n"
        "def check(*_):\n    print('unpacked', flush=True); signal.pause()\n"
        "package_cache.check_manifest = check\n"
        "read(sys.argv[1]).folder()"
    )
    killed = subprocess.Popen([sys.executable, "-c", program, path], cwd=REPOSITORY, stdout=subprocess.PIPE)
    with killed:
        assert killed.stdout is not None and killed.stdout.readline() == b"unpacked\n"
        # While it lives, another package that is unpacked leaves it alone.
        other = read(zip_of(tmp_path / "other.zip", sample())).folder()
        assert len([entry for entry in (cache / "packages").iterdir() if entry.name.startswith(".")]) == 1
        killed.kill()
    assert len([entry for entry in (cache / "packages").iterdir() if entry.name.startswith(".")]) == 1
    (tmp_path / "third").mkdir()
    third = read(zip_of(tmp_path / "third" / "p.zip", sample(name="third"))).folder()
    left = {entry.name for entry in (cache / "packages").iterdir()} - {"hashes"}
    assert left == {other.parent.name, third.parent.name}
    assert contents(read(path).folder()) == FILES


def test_a_killed_one_of_the_same_zip_is_cleaned_up_too(tmp_path: Path, cache: Path) -> None:
    package = read(zip_of(tmp_path / "p.zip", FILES))
    key = package.archive_hash()
    folder_of(cache / "packages" / f".{key}.0123456789abcdef", {"tree/config.json": b"half"})
    (cache / "packages" / f"{key}.lock").write_bytes(b"process 1\n")
    folder = package.folder()
    assert {entry.name for entry in (cache / "packages").iterdir()} - {"hashes"} == {folder.parent.name}


def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = read(zip_of(tmp_path / "p.zip", FILES))

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(package_cache, "_extract", full)
        with pytest.raises(PackageError, match="No space left on device; make room"):
            package.folder()
    with monkeypatch.context() as patch:
        patch.setattr(package_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
        with pytest.raises(PackageError, match=r"has 10 free; make room"):
            package.folder()
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert contents(package.folder()) == FILES


def test_a_cache_that_cannot_be_written_to_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = read(zip_of(tmp_path / "p.zip", FILES))
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BuildError, match="Set OPEXEC_CACHE"):
        package.folder()
    assert len(package.hash()) == 64  # which needs none


def test_hashes_are_remembered_until_a_file_changes(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sample()
    folder = folder_of(tmp_path / "p", files | {"manifest.json": manifest_of(files)})
    hashed: list[int] = []
    hash_files = package_cache.hash_files
    monkeypatch.setattr(package_cache, "hash_files", lambda opened: hashed.append(1) or hash_files(opened))
    # Files that changed a moment ago may change again unseen: nothing is remembered of them.
    read(folder).folder()
    assert hashed == [1] and not list(cache.rglob("*.json"))
    monkeypatch.setattr(package_cache, "SETTLED_NS", -1 << 62)
    read(folder).folder()
    read(folder).folder()
    assert read(folder).hash() and hashed == [1, 1]
    time_before = os.stat(folder / "0/data/model.pt").st_mtime_ns
    (folder / "0/data/model.pt").write_bytes(b"x" * len(files["0/data/model.pt"]))
    os.utime(folder / "0/data/model.pt", ns=(time_before, time_before))
    with pytest.raises(PackageError, match="changed: '0/data/model.pt'"):
        read(folder).folder()
    assert hashed == [1, 1, 1]
    with pytest.raises(PackageError, match="changed: '0/data/model.pt'"):
        read(folder).folder()  # a refusal is not remembered


def test_a_zip_exchanged_while_it_is_unpacked_is_noticed(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zip_of(tmp_path / "p.zip", FILES)
    package = read(path)
    check = package_cache.check_manifest

    def exchange(*arguments: object) -> None:
        zip_of(tmp_path / "new.zip", sample(name="new")).rename(path)
        check(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(package_cache, "check_manifest", exchange)
    with pytest.raises(PackageError, match="changed while it was unpacked"):
        package.folder()
    assert [found for found in cache.rglob("*") if found.is_file()] == []
    with pytest.raises(PackageError, match="changed after it was read"):
        package.folder()


def test_an_unpacked_package_packs_to_the_same_bytes(tmp_path: Path) -> None:
    first = repack(read(zip_of(tmp_path / "p.zip", FILES)), tmp_path / "a.zip")
    second = repack(read(first.folder()), tmp_path / "b.zip")
    assert first.path.read_bytes() == second.path.read_bytes()
    assert json.loads((first.folder() / "manifest.json").read_text())["manifest_version"] == 1
    assert time.time() - (first.folder().parent / "used").stat().st_mtime < 3600
