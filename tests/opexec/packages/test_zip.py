"""A zip that is broken or means harm is refused with one PackageError, and nothing of it is left on disk."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from opexec.errors import PackageError
from opexec.package import read
from opexec.packages import files as package_files
from opexec.packages import zip as package_zip
from opexec.packages.files import FolderFiles, Limits

from .package_samples import MODEL, folder_of, sample, zip_of


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("OPEXEC_CACHE", str(path))
    return path


def refused(path: Path, cache: Path, message: str, **arguments: object) -> PackageError:
    """What reading and unpacking raises; afterwards the cache holds no file."""
    with pytest.raises(PackageError, match=message) as caught:
        read(path, **arguments).folder()  # type: ignore[arg-type]
    assert [found for found in cache.rglob("*") if not found.is_dir()] == []
    assert str(path) in str(caught.value)
    return caught.value


def with_entry(path: Path, info: zipfile.ZipInfo, content: bytes = b"") -> Path:
    zip_of(path, sample())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, content)
    return path


@pytest.mark.parametrize(
    "name, message",
    [
        ("../evil", "leaves the package's folder"),
        ("0/../../evil", "leaves the package's folder"),
        ("/etc/evil", "absolute"),
        ("//evil", "absolute"),
        ("C:/evil", "absolute"),
        ("..\\evil", "backslash"),
        ("0\\data", "backslash"),
        ("0//data", "empty part"),
        ("./0/x", "empty part or '.'"),
        ("0/a\nb", "control characters"),
        ("0/\x1b[2J", "control characters"),
        ("0/\x85", "control characters"),
        ("0/" + "x" * 256, "too long"),
        ("/".join(["0"] * 600), "too long"),
        ("CONFIG.json", "differs from 'config.json' by case"),
        ("0/DATA/x", "differs from '0/data' by case"),
        ("0/data/model.pt/x", "a file and a folder"),
        ("0/data", "a file and a folder"),
        ("config.json", "is there twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bad_names(tmp_path: Path, cache: Path, name: str, message: str) -> None:
    outside = set(tmp_path.parent.iterdir())
    error = refused(with_entry(tmp_path / "p.zip", zipfile.ZipInfo(name), b"x"), cache, message)
    assert error.file is not None and "\n" not in str(error) and "\x1b" not in str(error)
    assert set(tmp_path.parent.iterdir()) == outside


def test_names_that_differ_by_normal_form_only(tmp_path: Path, cache: Path) -> None:
    files = sample() | {"0/data/\u00e9": b"", "0/data/e\u0301": b""}
    assert len(files) == 4
    refused(zip_of(tmp_path / "p.zip", files), cache, "normal form only")
    with pytest.raises(PackageError, match="normal form only"):
        read(folder_of(tmp_path / "p", files))
    fold = sample() | {"0/data/straße": b"", "0/data/STRASSE": b""}
    refused(zip_of(tmp_path / "q.zip", fold), cache, "differs from '0/data/straße' by case")


def test_a_name_with_a_zero_byte(tmp_path: Path, cache: Path) -> None:
    path = with_entry(tmp_path / "p.zip", zipfile.ZipInfo("0/evilX.so"))
    path.write_bytes(path.read_bytes().replace(b"0/evilX.so", b"0/evil\0.so"))
    refused(path, cache, "zero byte")


@pytest.mark.parametrize(
    "kind, message",
    [
        (stat.S_IFLNK, "a symbolic link"),
        (stat.S_IFCHR, "a character device"),
        (stat.S_IFBLK, "a block device"),
        (stat.S_IFIFO, "a named pipe"),
        (stat.S_IFSOCK, "a socket"),
        (0o130000, "something else"),
        (stat.S_IFDIR, "a file and a folder"),
    ],
)
@pytest.mark.parametrize("system", [0, 3])
def test_what_is_no_file(tmp_path: Path, cache: Path, kind: int, message: str, system: int) -> None:
    info = zipfile.ZipInfo("0/data/thing")
    info.create_system = system
    info.external_attr = (kind | 0o777) << 16
    error = refused(with_entry(tmp_path / "p.zip", info, b"/etc/passwd"), cache, message)
    assert error.file == "0/data/thing"


def test_links_and_devices_in_a_folder(tmp_path: Path) -> None:
    for name, make, message in [
        ("a", lambda path: path.symlink_to("/etc/passwd"), "a symbolic link"),
        ("b", lambda path: path.symlink_to("."), "a symbolic link"),
        ("c", os.mkfifo, "a named pipe"),
    ]:
        folder = folder_of(tmp_path / name, sample())
        make(folder / "0/data/thing")
        with pytest.raises(PackageError, match=message) as caught:
            read(folder)
        assert caught.value.file == "0/data/thing"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PackageError, match="it is neither"):
        read(tmp_path / "pipe")
    (tmp_path / "d").symlink_to(folder_of(tmp_path / "real", sample()))
    assert read(tmp_path / "d").name == "adder"  # the way to the package is the user's own


def test_what_python_leaves_in_a_folder_is_no_part_of_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p", sample() | {"0/code/m.py": b""})
    before = read(folder).hash()
    folder_of(folder, {"0/code/__pycache__/m.cpython-37.pyc": b"x"})
    assert read(folder).hash() == before and "0/code/m.py" in read(folder).files


# ---- broken archives


def test_a_truncated_zip_is_refused_wherever_it_ends(tmp_path: Path, cache: Path) -> None:
    whole = zip_of(tmp_path / "whole.zip", sample()).read_bytes()
    path = tmp_path / "p.zip"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        refused(path, cache, "zip")


def test_a_changed_byte_of_a_file_is_found(tmp_path: Path, cache: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = zip_of(tmp_path / f"{method}.zip", sample(), method)
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("0/data/model.pt")
        content = bytearray(path.read_bytes())
        content[info.header_offset + 30 + len(info.filename) + info.compress_size // 2] ^= 4
        path.write_bytes(content)
        assert refused(path, cache, "the zip is broken").file == "0/data/model.pt"


def patched(path: Path, name: str, field: int, width: str, value: int, local: int | None = None) -> None:
    """Overwrite a field of an entry in the central directory (and in its local header, whose layout lacks two bytes)."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.start_dir
        header = archive.getinfo(name).header_offset
    while content[at + 46 : at + 46 + len(name)] != name.encode():
        lengths = struct.unpack_from("<3H", content, at + 28)
        at += 46 + sum(lengths)
    struct.pack_into(f"<{width}", content, at + field, value)
    if local is not None:
        struct.pack_into(f"<{width}", content, header + local, value)
    path.write_bytes(content)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("size", [1, len(MODEL) - 1, len(MODEL) + 1, 1 << 20])
def test_an_entry_that_lies_about_its_size(tmp_path: Path, cache: Path, method: int, size: int) -> None:
    path = zip_of(tmp_path / "p.zip", sample(), method)
    patched(path, "0/data/model.pt", 24, "I", size, local=22)
    refused(path, cache, "zip is|zip:|overlaps|expected")


def test_an_entry_that_lies_about_its_size_and_its_crc(tmp_path: Path, cache: Path) -> None:
    """What is unpacked is never more than what was declared."""
    path = zip_of(tmp_path / "p.zip", sample())
    patched(path, "0/data/model.pt", 24, "I", 10, local=22)
    patched(path, "0/data/model.pt", 16, "I", zlib.crc32(MODEL[:10]), local=14)
    assert (read(path).folder() / "0/data/model.pt").read_bytes() == MODEL[:10]


def test_declared_sizes_are_checked_against_the_limits(tmp_path: Path, cache: Path) -> None:
    path = zip_of(tmp_path / "p.zip", sample())
    patched(path, "0/data/model.pt", 24, "I", 0xFFFFFFFE, local=22)
    refused(path, cache, r"unpack to 429\d+, more than 100 times as much \(Limits.ratio\)")
    refused(path, cache, r"Limits.size\), got 429\d+", limits=Limits(size=1 << 30))
    # With the limits raised the lie is found out all the same.
    refused(path, cache, "expected 4294967294 bytes, got", limits=Limits(ratio=1e9))


def test_a_bomb_needs_its_limit_raised(tmp_path: Path, cache: Path) -> None:
    files = sample() | {"0/data/zeros": bytes(50 << 20)}
    path = zip_of(tmp_path / "p.zip", files)
    tight = Limits(ratio_from=1 << 20)
    refused(path, cache, "Limits.ratio", limits=tight)
    package = read(path, limits=Limits(ratio_from=1 << 20, ratio=2000))
    assert (package.folder() / "0/data/zeros").stat().st_size == 50 << 20


def test_too_many_files(tmp_path: Path, cache: Path) -> None:
    files = sample() | {f"0/data/{index}": b"" for index in range(50)}
    limits = Limits(files=20)
    refused(zip_of(tmp_path / "p.zip", files), cache, "Limits.files", limits=limits)
    with pytest.raises(PackageError, match="Limits.files"):
        read(folder_of(tmp_path / "p", files), limits=limits)


def test_a_large_text_is_not_read(tmp_path: Path, cache: Path) -> None:
    refused(zip_of(tmp_path / "p.zip", sample()), cache, "config.json: .*Limits.text", limits=Limits(text=20))


def test_a_directory_that_says_it_is_large(tmp_path: Path, cache: Path) -> None:
    refused(zip_of(tmp_path / "p.zip", sample()), cache, "Limits.listing", limits=Limits(listing=50))


def test_entries_that_overlap(tmp_path: Path, cache: Path) -> None:
    path = zip_of(tmp_path / "p.zip", sample() | {"0/data/more": MODEL})
    with zipfile.ZipFile(path) as archive:
        shared = archive.getinfo("0/data/model.pt").header_offset
    patched(path, "0/data/more", 42, "I", shared)
    refused(path, cache, "overlaps another entry")


def test_encrypted_and_exotic_entries(tmp_path: Path, cache: Path) -> None:
    path = zip_of(tmp_path / "p.zip", sample())
    patched(path, "0/data/model.pt", 8, "H", 1, local=6)
    refused(path, cache, "is encrypted")
    refused(zip_of(tmp_path / "q.zip", sample(), zipfile.ZIP_LZMA), cache, "compression method 14")


# ---- writing


def written(tmp_path: Path, files: dict[str, bytes], compress: bool = False) -> bytes:
    folder = folder_of(tmp_path / os.urandom(4).hex(), files)
    with open(tmp_path / "out.zip", "w+b") as target:
        package_zip.write_zip(FolderFiles(folder, Limits()), target, compress)
        target.seek(0)
        return target.read()


@pytest.mark.parametrize("compress", [False, True])
def test_same_contents_same_bytes(tmp_path: Path, compress: bool) -> None:
    files = sample() | {"0/data/ü": b"umlaut", "0/code/a.py": b"", "0/code/b.py": b"x"}
    first = written(tmp_path, files, compress)
    old = os.umask(0o077)  # what a folder's files look like otherwise does not matter
    try:
        second = written(tmp_path, dict(reversed(list(files.items()))), compress)
    finally:
        os.umask(old)
    assert first == second
    (tmp_path / "p.zip").write_bytes(first)
    with zipfile.ZipFile(tmp_path / "p.zip") as archive:
        assert archive.testzip() is None and archive.namelist() == sorted(files)
        assert {name: archive.read(name) for name in files} == files


def test_the_bytes_of_a_package_are_the_same_everywhere(tmp_path: Path) -> None:
    """Written by hand after APPNOTE 4.3: one stored entry, its directory, and the end."""
    name, content = b"config.json", b"{}"
    common = struct.pack("<HHHHIIIHH", 0, 0, 0, 33, zlib.crc32(content), 2, 2, len(name), 0)
    local = b"PK\3\4" + struct.pack("<H", 20) + common + name + content
    central = b"PK\1\2" + struct.pack("<BBH", 20, 3, 20) + common
    central += struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, 0) + name
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    assert written(tmp_path, {"config.json": content}) == local + central + end


@pytest.mark.slow
def test_packages_past_4_gib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 4 GiB and one past it: sparse on both sides, and without CRCs, which would take most of the time."""
    monkeypatch.setattr(zipfile, "crc32", lambda data, value=0: 0)
    monkeypatch.setattr(package_files, "CHUNK", 1 << 24)
    size = (4 << 30) + 5
    folder = folder_of(tmp_path / "p", sample() | {"zzz": b"after all that"})
    with open(folder / "0/data/weights", "wb") as file:
        file.truncate(size)
    zeros = bytes(1 << 24)

    class Sparse:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if len(data) == len(zeros) and data == zeros:
                self.file.seek(len(data), os.SEEK_CUR)  # type: ignore[attr-defined]
                return len(data)
            return self.file.write(data)  # type: ignore[attr-defined,no-any-return]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    path = tmp_path / "p.zip"
    with open(path, "w+b") as target:
        package_zip.write_zip(FolderFiles(folder, Limits()), Sparse(target))  # type: ignore[arg-type]
    assert path.stat().st_size > size and path.stat().st_blocks * 512 < 1 << 28
    package = read(path)
    assert package.files["0/data/weights"] == size and package.name == "adder"
    with package_files.open_files(path, Limits()) as files:
        assert package_files.read(files, "zzz") == b"after all that"
        assert sum(len(chunk) for chunk in files.chunks("0/data/weights")) == size
