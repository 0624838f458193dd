"""Environments from a conda environment.yml.

No conda can be had from PyPI or Debian, so a stand-in on PATH plays the tool: it keeps a record of how it was called and makes a folder as
conda does. That what opexec calls is what micromamba and conda take, and what they say, is known from their sources and documentation alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.environments import conda as environment_conda
from opexec.environments import conda_file
from opexec.environments import store as environment_store
from opexec.errors import BuildError
from opexec.files import caches
from tests.command import PATIENCE, REPOSITORY, opexec_here
from tests.shelves import home_of, quiet

FILE = """
name: old
channels: [conda-forge]
dependencies:
  - python=3.8
  - numpy
"""

# Makes a conda folder out of a venv of the interpreter that runs the tests. A file with "numpy" in it has one.
TOOL = """#!{python}
import glob, json, os, subprocess, sys, time
with open({record!r}, "a") as record:
    record.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
prefix = sys.argv[sys.argv.index("--prefix") + 1]
if "--explicit" in sys.argv and {mute!r} in sys.argv:
    sys.exit("no such option")
if "--explicit" in sys.argv:
    print("@EXPLICIT\\nfile:///numpy-1.5.conda")
    raise SystemExit
text = open(sys.argv[sys.argv.index("--file") + 1]).read()
if "chatty" in text:
    print("Channels:\\n - conda-forge\\n\\n  Package    Version  Build\\n" + 30 * "-")
    print("Solving environment: ...working... ", end="", flush=True)
    while not os.path.exists({record!r} + ".heard"):
        time.sleep(0.01)
    print("done\\n  + numpy        1.5  py_0   conda-forge   7MB\\n  Install: 2 packages\\n")
    for percent in range(0, 101, 5):
        print("numpy-1.5            | 7.1 MB    | ###  | " + str(percent) + "% ", end="\\r", flush=True)
    print("\\x1b[1mLinking python-3.8-h1\\x1b[0m\\nLinking numpy-1.5-py_0", file=sys.stderr)
    print("To activate this environment, use:\\n\\n    micromamba activate x", flush=True)
if "impossible" in text:
    os.makedirs(prefix)
    sys.exit("nothing provides impossible")
if "python" in text or "@EXPLICIT" in text:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    os.makedirs(os.path.join(prefix, "conda-meta"))
    if "numpy" in text:
        (site,) = glob.glob(os.path.join(prefix, "lib", "python*", "site-packages"))
        for folder in ("numpy", "numpy-1.5.dist-info"):
            os.mkdir(os.path.join(site, folder))
        open(os.path.join(site, "numpy", "__init__.py"), "w").close()
        with open(os.path.join(site, "numpy-1.5.dist-info", "METADATA"), "w") as metadata:
            metadata.write("Metadata-Version: 2.1\\nName: numpy\\nVersion: 1.5\\n")
else:
    os.makedirs(prefix)
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPEXEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
    for name in ("MAMBA_EXE", "CONDA_EXE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path / "record"


def install(tmp_path: Path, name: str, record: Path, mute: str = "") -> Path:
    """`mute`: the command by which this one does not list its packages."""
    tool = tmp_path / "bin" / name
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(TOOL.format(python=sys.executable, record=str(record), mute=mute))
    tool.chmod(0o755)
    return tool


def calls(record: Path) -> list[list[str]]:
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def test_without_a_tool_the_error_says_what_to_install(tmp_path: Path, record: Path) -> None:
    (tmp_path / "environment.yml").write_text(FILE)
    environment = Environment.from_conda(tmp_path / "environment.yml")
    with pytest.raises(
        BuildError, match="expected micromamba, mamba or conda on PATH .* there is none. Install one"
    ):
        environment.resolve(quiet)
    assert list(caches.folder("environments").glob("*/venv")) == []


@pytest.mark.parametrize("name", ["micromamba", "mamba", "conda"])
def test_the_users_tool_makes_it_once(
    tmp_path: Path, record: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(FILE)
    tool = install(tmp_path, name, record)
    environment = Environment.from_conda(file, env_vars={"A": "1"})
    python = environment.resolve(quiet)
    home = home_of(python)
    prefix = str(home / "venv")
    create, export = {
        "micromamba": (["create", "--yes"], ["env", "export", "--explicit"]),
        "mamba": (["env", "create"], ["list", "--explicit"]),
        "conda": (["env", "create"], ["list", "--explicit"]),
    }[name]
    made = [name, *create, "--prefix", prefix, "--file", str(file)]
    assert calls(record) == [made, [name, *export, "--prefix", prefix]]
    summary = caches.read_json(home / "complete.json")
    assert summary["requested"] == {"conda": str(file)} and summary["made_with"]["path"] == str(tool)

    tool.unlink()
    assert environment.resolve(quiet) == python  # from the cache
    shutil.rmtree(home / "venv")
    install(tmp_path, name, record)
    assert environment.resolve(quiet) == python
    exact = [name, "create", "--yes", "--prefix", prefix, "--file", str(home / "conda.lock")]
    assert calls(record)[2] == exact
    file.write_text(FILE.replace("3.8", "3.9"))
    assert environment.resolve(quiet) != python


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dependencies: [python, impossible]", "micromamba says:\n  nothing provides impossible"),
        ("dependencies: [numpy]", "to ask for python, because a worker runs in it"),
        ("dependencies: [python, nothing-else]", "expected numpy in the environment of .*environment.yml"),
    ],
)
def test_what_the_tool_cannot_do_is_told_and_leaves_nothing(
    tmp_path: Path, record: Path, text: str, words: str
) -> None:
    (tmp_path / "environment.yml").write_text(text)
    install(tmp_path, "micromamba", record)
    with pytest.raises(BuildError, match=words):
        Environment.from_conda(tmp_path / "environment.yml").resolve(quiet)
    assert list(caches.folder("environments").glob("*/venv")) == []


# What it says


CHATTY = "dependencies: [python, numpy, chatty]"
STEPS = [
    "micromamba is making it",
    "Solving environment",
    "installing 2 packages",
    "downloading numpy-1.5 (7.1 MB)",
    "linking python-3.8-h1, 1 of 2",
    "linking numpy-1.5-py_0, 2 of 2",
]


def test_what_the_tool_is_at_is_told_while_it_is_at_it(tmp_path: Path, record: Path) -> None:
    (tmp_path / "environment.yml").write_text(CHATTY)
    install(tmp_path, "micromamba", record)
    told: list[str] = []

    def hear(step: str) -> None:
        told.append(step)
        if step == "Solving environment":  # it waits for this, in the middle of its line
            Path(f"{record}.heard").touch()

    environment = Environment.from_conda(tmp_path / "environment.yml")
    environment.resolve(hear)
    assert told[0] == f"environment {environment}" and told[1:-1] == STEPS
    assert told[-1].startswith("ready in ")


def test_a_log_gets_a_line_a_step(tmp_path: Path, record: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "environment.yml").write_text(CHATTY)
    install(tmp_path, "micromamba", record)
    Path(f"{record}.heard").touch()
    environment = Environment.from_conda(tmp_path / "environment.yml")
    environment.resolve()
    _, shown = capfd.readouterr()
    lines = shown.splitlines()
    assert lines[:-1] == [f"opexec: {line}" for line in (f"environment {environment}", *STEPS)]


def test_a_terminal_shows_it_live(tmp_path: Path, record: Path) -> None:
    (tmp_path / "environment.yml").write_text(CHATTY)
    install(tmp_path, "micromamba", record)
    controller, terminal = pty.openpty()
    program = f"from opexec import Environment; Environment.from_conda({str(tmp_path / 'environment.yml')!r}).resolve()"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other side has closed it
        while select.select([controller], [], [], PATIENCE)[0] and (part := os.read(controller, 65536)):
            shown += part
            if b"Solving environment" in shown:  # the tool waits for it to be seen
                Path(f"{record}.heard").touch()
    os.close(controller)
    assert process.wait(PATIENCE) == 0 and b"Solving environment" in shown
    assert b"ready in" in shown


def test_the_error_has_all_that_it_said(tmp_path: Path, record: Path) -> None:
    (tmp_path / "environment.yml").write_text("dependencies: [python, chatty, impossible]")
    install(tmp_path, "conda", record)
    Path(f"{record}.heard").touch()
    with pytest.raises(BuildError) as caught:
        Environment.from_conda(tmp_path / "environment.yml").resolve(quiet)
    said = str(caught.value)
    assert "conda says:\n  Channels:\n   - conda-forge\n" in said
    assert "\n  Solving environment: ...working... done\n" in said and "\n  Linking numpy-1.5-py_0\n" in said
    assert "\n  nothing provides impossible\nChange the file, or the tool's channels." in said
    assert "35%" not in said  # of what it drew again and again, the end


@pytest.mark.parametrize(
    ("name", "mute", "listed"), [("mamba", "list", True), ("mamba", "env", True), ("conda", "list", False)]
)
def test_packages_are_listed_as_the_tool_can(
    tmp_path: Path, record: Path, name: str, mute: str, listed: bool
) -> None:
    """mamba 1 lists as conda does, mamba 2 as micromamba. One that cannot makes the environment all the same."""
    (tmp_path / "environment.yml").write_text(FILE)
    install(tmp_path, name, record, mute)
    told: list[str] = []
    home = home_of(Environment.from_conda(tmp_path / "environment.yml").resolve(told.append))
    assert (home / "conda.lock").is_file() == listed
    assert any("does not list its exact packages" in step for step in told) != listed


# What it is made from


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("    - -r requirements.txt", "requirements.txt"),
        ("    - -rrequirements.txt  # pinned", "requirements.txt"),
        ('    - "--requirement=requirements.txt"', "requirements.txt"),
        ("    - -r requirements.txt", "more/limits.txt"),
        ("    - -r requirements.txt", "package/module.py"),
        ("    - ./package", "package/module.py"),
        ("    - -e ./package[extra]", "package/module.py"),
        ("    - ./package/; python_version > '3'", "package/pyproject.toml"),
        ("    - name @ file://{folder}/package", "package/module.py"),
        ("    - wheels/tiny-1.0-py3-none-any.whl", "wheels/tiny-1.0-py3-none-any.whl"),
        ("    - ${{PLACE}}/package", "package/module.py"),
    ],
)
@pytest.mark.parametrize("flow", [False, True])
def test_what_the_file_refers_to_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, changed: str, flow: bool
) -> None:
    monkeypatch.setenv("PLACE", ".")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "pyproject.toml").write_text("[project]\nname = 'package'\n")
    (tmp_path / "package" / "module.py").write_text("")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "limits.txt").write_text("six<2\n../package\n")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl").write_text("")
    (tmp_path / "requirements.txt").write_text("six\n-c more/limits.txt\n")
    line = line.format(folder=tmp_path)
    if flow:
        item = line.partition("- ")[2].partition("  #")[0].strip('"')
        pip = f'dependencies: [python, numpy, {{pip: ["{item}", six]}}]\n'
    else:
        pip = f"dependencies:\n  - python\n  - numpy\n  - pip:\n{line}\n    - six\n"
    file = tmp_path / "environment.yml"
    file.write_text(pip)
    before = environment_conda.key(file)
    assert environment_conda.key(file) == before
    with open(tmp_path / changed, "a") as other:
        other.write("another\n")
    assert environment_conda.key(file) != before


def test_equal_files_beside_unequal_requirements_are_two_environments(tmp_path: Path, record: Path) -> None:
    install(tmp_path, "micromamba", record)
    pythons = []
    for project, requirement in (("one", "six<2"), ("other", "six>=2"), ("third", "six<2  # the same")):
        (tmp_path / project).mkdir()
        (tmp_path / project / "environment.yml").write_text(f"{FILE}  - pip:\n    - -r requirements.txt\n")
        (tmp_path / project / "requirements.txt").write_text(f"{requirement}\n")
        pythons.append(Environment.from_conda(tmp_path / project / "environment.yml").resolve(quiet))
    assert pythons[0] != pythons[1] and pythons[0] == pythons[2]


@pytest.mark.parametrize(
    "text",
    [
        FILE,
        "channels: [file:///tmp, /usr]\ndependencies: [python, conda-forge/linux-64::numpy]\nprefix: /usr\n",
        "dependencies:\n  - pip:\n    - -r absent.txt\n    - -r https://example.org/r.txt\n    - git+https://example.org/x\n"
        "    - ./absent\n    - --pre\n    - x @ https://example.org/x.whl\n    - ~nobody/x\n",
    ],
)
def test_what_is_not_of_this_machine_counts_by_its_name(tmp_path: Path, text: str) -> None:
    assert conda_file.taken_from(tmp_path / "environment.yml", text) == []


def test_requirements_that_name_one_another_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("-r b.txt\n")
    (tmp_path / "b.txt").write_text("-r a.txt\n")
    assert conda_file.taken_from(tmp_path / "x.yml", "- pip:\n  - -r a.txt") == [["-r b.txt"], ["-r a.txt"]]


# By name


def test_its_name_does_not_need_the_file_any_more(tmp_path: Path, record: Path) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(FILE)
    install(tmp_path, "micromamba", record)
    python = Environment.from_conda(file).resolve(quiet)
    environment_store.save("old", {"conda": str(file), "env_vars": {"A": "1"}}, python)
    file.rename(tmp_path / "elsewhere.yml")
    named = environment_store.named("old")
    assert named.resolve(quiet) == python and named.conda == str(file) and dict(named.env_vars) == {"A": "1"}
    assert environment_store.resolve("old") == python
    shutil.rmtree(home_of(python) / "venv")
    assert environment_store.named("old").resolve(quiet) == python  # from the list of its packages
    assert calls(record)[-2][-1] == str(home_of(python) / "conda.lock")
    shutil.rmtree(home_of(python))
    with pytest.raises(
        BuildError, match=r"expected conda to be an environment.yml, but .*environment.yml cannot be read"
    ):
        environment_store.named("old").resolve(quiet)


def test_its_list_of_packages_makes_it_again(tmp_path: Path, record: Path) -> None:
    (tmp_path / "environment.yml").write_text(FILE)
    install(tmp_path, "conda", record)
    first = opexec_here("env", "create", "old", "-r", tmp_path / "environment.yml")
    assert first.status == 0, first.err
    assert opexec_here("env", "lock", "old", "-o", tmp_path / "old.lock").status == 0
    again = opexec_here("env", "create", "again", "--lock", tmp_path / "old.lock")
    assert again.status == 0 and again.out != first.out, again.err
    made = str(home_of(Path(again.out.strip())) / "venv")
    assert calls(record)[-2] == [
        "conda",
        "create",
        "--yes",
        "--prefix",
        made,
        "--file",
        str(tmp_path / "old.lock"),
    ]


def test_create_says_that_the_file_has_changed(tmp_path: Path, record: Path) -> None:
    file = tmp_path / "environment.yml"
    file.write_text(f"{FILE}  - pip:\n    - -r requirements.txt\n")
    (tmp_path / "requirements.txt").write_text("six\n")
    install(tmp_path, "micromamba", record)
    first = opexec_here("env", "create", "old", "-r", file)
    assert opexec_here("env", "create", "old", "-r", file).out == first.out
    (tmp_path / "requirements.txt").write_text("six<2\n")
    refused = opexec_here("env", "create", "old", "-r", file)
    assert (
        refused.status == 1 and "from before the files changed that it is made from (conda /" in refused.err
    )
    assert opexec_here("env", "path", "old").out == first.out
    replaced = opexec_here("env", "create", "old", "-r", file, "--replace")
    assert replaced.status == 0 and replaced.out != first.out
    assert opexec_here("env", "path", "old").out == replaced.out
