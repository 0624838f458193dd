"""A package that unpacks to more than is allowed is refused by whatever reads it, and is read by the same with its limit raised."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import opexec
from opexec.errors import PackageError
from opexec.neuropod.loader import load_neuropod
from opexec.package import Limits, is_package
from tests.command import opexec_here

from .package_samples import zip_of

SIZE = Limits().ratio_from + (1 << 20)  # of zeros, which deflate to a thousandth
ENOUGH = Limits(size=2 * SIZE, ratio_from=2 * SIZE)
OPTION = str(2 * SIZE)

CODE = """
import os
import numpy as np

def make(data):
    return lambda x: {"size": np.full(len(x), os.path.getsize(os.path.join(data, "zeros")))}
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all, so that it is unpacked once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPEXEC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def zeros(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose model tells the size of a file of zeros in it."""
    config = {
        "name": "zeros",
        "platform": "python",
        "input_spec": [{"name": "x", "dtype": "int64", "shape": ["n"]}],
        "output_spec": [{"name": "size", "dtype": "int64", "shape": ["n"]}],
    }
    return zip_of(
        tmp_path_factory.mktemp("package") / "zeros.zip",
        {
            "config.json": json.dumps(config).encode(),
            "0/config.json": b'{"entrypoint_package": "small.model", "entrypoint": "make"}',
            "0/code/small/__init__.py": b"",
            "0/code/small/model.py": CODE.encode(),
            "0/data/zeros": bytes(SIZE),
        },
    )


@pytest.mark.parametrize("isolation", ["process", "none"])
@pytest.mark.parametrize("load", [opexec.load, load_neuropod])
def test_it_loads_with_its_limit_raised(load: Callable[..., Any], isolation: str, zeros: Path) -> None:
    with pytest.raises(PackageError, match=r"\(Limits\.ratio\).*limits=Limits\(ratio_from=\d+\)"):
        load(zeros, isolation=isolation)
    with pytest.raises(PackageError, match=r"\(Limits\.size\).*limits=Limits\(size=\.\.\.\)"):
        load(zeros, isolation=isolation, limits=Limits(size=1 << 20))
    with load(zeros, isolation=isolation, limits=ENOUGH) as model:
        assert model.infer({"x": [0]})["size"].tolist() == [SIZE]


def test_it_is_swapped_in_with_its_limit_raised_which_then_stays(zeros: Path) -> None:
    small = zeros.with_name("small.zip")
    with zipfile.ZipFile(zeros) as whole:
        zip_of(
            small,
            {name: whole.read(name) for name in whole.namelist() if name != "0/data/zeros"}
            | {"0/data/zeros": b"0"},
        )
    with opexec.load(small) as model:
        with pytest.raises(PackageError, match=r"Limits\.ratio"):
            model.swap(zeros)
        assert model.infer({"x": [0]})["size"].tolist() == [1]
        model.swap(zeros, limits=ENOUGH)
        assert model.infer({"x": [0]})["size"].tolist() == [SIZE]
        model.swap(zeros)


def test_what_means_to_be_a_package_depends_on_the_limit(zeros: Path) -> None:
    assert not is_package(zeros) and is_package(zeros, limits=ENOUGH)


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        ("run", ["--input", "x=[0]"], str(SIZE)),
        ("verify", [], "there is no test_data.pkl"),
        ("inspect", ["--load"], "0/data/zeros"),
    ],
)
def test_a_commands_option_raises_it(command: str, options: list[str], says: str, zeros: Path) -> None:
    done = opexec_here(command, zeros, *options)
    assert done.status == 1 and "Limits.ratio" in done.err and "--max-unpacked" in done.err, done
    done = opexec_here(command, zeros, *options, "--max-unpacked", "1MiB")
    assert done.status == 1 and "Limits.size" in done.err, done
    done = opexec_here(command, zeros, *options, "--max-unpacked", OPTION)
    assert done.status == 0 and says in done.out, done


def test_a_package_is_written_anew_with_its_limit_raised(zeros: Path, tmp_path: Path) -> None:
    target = tmp_path / "anew"
    for more, says in (([], "Limits.ratio"), (["--max-unpacked", "1MiB"], "Limits.size")):
        done = opexec_here("pack", zeros, target, "--folder", *more)
        assert done.status == 1 and says in done.err, done
        assert not any(tmp_path.iterdir())
    done = opexec_here("pack", zeros, target, "--folder", "--max-unpacked", OPTION)
    assert done.status == 0 and (target / "0/data/zeros").stat().st_size == SIZE, done


def test_what_are_no_limits_is_refused(zeros: Path) -> None:
    with pytest.raises(TypeError, match=r"limits is 3; expected an opexec\.package\.Limits"):
        opexec.load(zeros, limits=3)  # type: ignore[arg-type]
