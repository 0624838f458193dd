"""Environments from files: requirements.txt, pyproject.toml, a script's metadata."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from opexec.environment import Environment
from opexec.errors import BuildError
from tests import shelves
from tests.shelves import quiet, versions

own_settings = shelves.own_settings
shelf = shelves.shelf


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def project(folder: Path, name: str) -> Path:
    put(folder / "pyproject.toml", f"[project]\nname = '{name}'\nversion = '1'\n")
    return folder


# requirements.txt


def test_a_requirements_file_is_read_as_pip_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "t0")
    project(tmp_path / "local", "Local.Package")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "built_one-1.0-py3-none-any.whl").write_bytes(b"")
    put(tmp_path / "more" / "deeper.txt", "deep==1\n-e ../local\n")
    put(tmp_path / "more" / "bounds.txt", "bound<2\n")
    file = put(
        tmp_path / "requirements.txt",
        """\
        \ufeff# a comment
        --index-url https://me:${TOKEN}@one/simple
        --extra-index-url=https://two/simple
        -f wheels
        -i https://me:${TOKEN}@three/${unset}/${UNSET_VARIABLE}

        Some_Name >= 1, \\
            < 2   # until it breaks
        with-extra[B,a]~=3.0; python_version < "3.9"  # marker
        -r more/deeper.txt
        -cmore/bounds.txt
        ./wheels/built_one-1.0-py3-none-any.whl ; python_version < "4"
        tool @ https://host/tool-2.0.zip#sha1=00
        git+https://host/repository#egg=Cloned
        """,
    )
    environment = Environment.from_requirements(file)
    assert environment == Environment(
        requirements=[
            "some-name>=1,<2",
            'with-extra[a,b]~=3.0; python_version < "3.9"',
            "deep==1",
            f"local-package @ {(tmp_path / 'local').as_uri()}",
            f"built-one @ {(tmp_path / 'wheels' / 'built_one-1.0-py3-none-any.whl').as_uri()} ; python_version < '4'",
            "tool @ https://host/tool-2.0.zip#sha1=00",
            "cloned @ git+https://host/repository#egg=Cloned",
        ],
        constraints=["bound<2"],
        find_links=[tmp_path / "wheels"],
        index_url="https://me:t0@three/${unset}/${UNSET_VARIABLE}",
        extra_index_urls=["https://two/simple"],
    )


def test_arguments_come_before_what_a_file_says(tmp_path: Path) -> None:
    file = put(tmp_path / "requirements.txt", "tiny\n--index-url https://one/\n")
    changed = Environment.from_requirements(
        str(file), python="3.8", index_url="https://two/", env_vars={"A": "1"}
    )
    assert changed == Environment("3.8", ["tiny"], index_url="https://two/", env_vars={"A": "1"})


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("ok\nnot ok at all\n", 2, "expected a requirement"),
        ("a \\\n  >1\nb=1\n", 3, "got 'b=1'"),
        ("--no-index\n", 1, "Set PIP_NO_INDEX=1 instead"),
        ("--pre\n", 1, "the option --pre. Set UV_PRERELEASE"),
        ("a==1 --hash=sha256:00\n", 1, "use Environment.from_lock, which verifies them"),
        ("a==1 \\\n --hash=sha256:00\n", 1, "Environment.from_lock"),
        ("--unknown x\n", 1, "the option --unknown. Leave it out"),
        ("\n\n./nowhere\n", 3, "'./nowhere': there is no .*/nowhere"),
        ("./unnamed\n", 1, r"it does not tell the name of its package. Write 'name @ file:///.*/unnamed'"),
        ("-r\n", 1, "expected one value after --requirement"),
        ("-r https://host/r.txt\n", 1, "only files of this machine"),
        ("-r absent.txt\n", 1, r"absent\.txt to be a requirements file, but it cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    (tmp_path / "unnamed").mkdir()
    file = put(tmp_path / "requirements.txt", text)
    with pytest.raises(BuildError, match=words) as caught:
        Environment.from_requirements(file)
    assert str(caught.value).startswith(f"{file}, line {line}: ")


def test_an_error_in_a_file_within_names_that_file(tmp_path: Path) -> None:
    file = put(tmp_path / "requirements.txt", "-r inner.txt\n")
    inner = put(tmp_path / "inner.txt", "ok\n-c bounds.txt\n")
    bounds = put(tmp_path / "bounds.txt", "--index-url https://one/\n")
    with pytest.raises(
        BuildError, match="a file of constraints cannot have the option --index-url"
    ) as caught:
        Environment.from_requirements(file)
    assert f"{bounds}, line 1: " in str(caught.value)
    inner.write_text("-r requirements.txt\n")
    with pytest.raises(BuildError, match=f"expected {inner} not to name {file}, which names it in turn"):
        Environment.from_requirements(file)


def test_an_environment_is_built_from_a_requirements_file(shelf: Path, tmp_path: Path) -> None:
    shelves.source_archive(tmp_path, "sourced", "1.0")
    file = put(tmp_path / "requirements.txt", "tiny\n./sourced-1.0.tar.gz\n-c bounds.txt\n")
    put(tmp_path / "bounds.txt", "tiny<2\n")
    python = Environment.from_requirements(file).resolve(quiet)
    assert versions(python, "tiny", "sourced", "numpy") == ["1.0", "1.0", "1.5"]


# pyproject.toml

PROJECT = """
    [project]
    name = "My.Project"
    requires-python = ">=3.8"
    dependencies = ["One>=1", "sourced"]
    [project.optional-dependencies]
    gpu = ["fast", "my-project[Plots,io]"]
    plots = ["plotter"]
    io = ["reader", "my-project[gpu]"]
    [dependency-groups]
    Test_All = ["checker", {include-group = "lint"}]
    lint = ["linter"]
    loop = [{include-group = "loop"}]
    odd = [7]
    [tool.uv]
    constraint-dependencies = ["one<2"]
    find-links = ["wheels", "https://links/"]
    [[tool.uv.index]]
    url = "https://extra/simple"
    [[tool.uv.index]]
    url = "https://main/simple"
    default = true
    [[tool.uv.index]]
    name = "special"
    url = "https://special/simple"
    explicit = true
    [tool.uv.sources]
    sourced = {git = "https://host/sourced", tag = "v1", subdirectory = "python"}
    plotter = {path = "../plotter", editable = true}
    fast = {url = "https://host/fast-1.0.whl"}
    checker = {index = "special"}
"""


def test_a_project_is_read(tmp_path: Path) -> None:
    file = put(tmp_path / "project" / "pyproject.toml", PROJECT)
    project(tmp_path / "plotter", "plotter")
    common = {
        "python": ">=3.8",
        "constraints": ["one<2"],
        "find_links": [tmp_path / "project" / "wheels", "https://links/"],
        "index_url": "https://main/simple",
        "extra_index_urls": ["https://extra/simple"],
    }
    own = ["one>=1", "sourced @ git+https://host/sourced@v1#subdirectory=python"]
    assert Environment.from_pyproject(file) == Environment(requirements=own, **common)
    assert Environment.from_pyproject(file.parent, groups=["lint"]) == Environment(
        requirements=[*own, "linter"], **common
    )
    extras = ["fast @ https://host/fast-1.0.whl", f"plotter @ {(tmp_path / 'plotter').as_uri()}", "reader"]
    assert Environment.from_pyproject(file, extras=["GPU"]) == Environment(
        requirements=[*own, *extras], **common
    )
    assert Environment.from_pyproject(file, python="3.9").python == "3.9"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"extras": ["none"]}, "has no extra 'none'. It has: gpu, io, plots"),
        ({"extras": "gpu"}, "expected a list of extras; got the text 'gpu'"),
        ({"groups": ["none"]}, "has no dependency group 'none'. It has: lint, loop, odd, test-all"),
        ({"groups": ["loop"]}, "'loop' .* includes itself"),
        ({"groups": ["odd"]}, "expected a requirement .* got 7"),
        ({"groups": ["test-all"]}, "the source of 'checker' in tool.uv.sources, {'index': 'special'}"),
    ],
)
def test_what_a_project_does_not_have_is_said(
    tmp_path: Path, arguments: dict[str, list[str]], words: str
) -> None:
    file = put(tmp_path / "pyproject.toml", PROJECT)
    with pytest.raises(BuildError, match=words):
        Environment.from_pyproject(file, **arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[project]\ndynamic = ['dependencies']\nname = 'x'", r"they are dynamic.*\['x @ file:///"),
        ("[project]\ndependencies = 'x'", "to be a list of texts; got 'x'"),
        ("[project]\ndependencies = ['x=1']", r"pyproject\.toml: expected a requirement .* got 'x=1'"),
        ("[project", "expected TOML in"),
        ("[tool.uv]\noverride-dependencies = ['x']", "with tool.uv.override-dependencies of"),
    ],
)
def test_a_project_that_cannot_be_followed_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BuildError, match=words):
        Environment.from_pyproject(put(tmp_path / "pyproject.toml", text))
    with pytest.raises(BuildError, match="cannot be read"):
        Environment.from_pyproject(tmp_path / "absent")


def test_an_environment_is_built_from_a_project(shelf: Path, tmp_path: Path) -> None:
    put(
        tmp_path / "pyproject.toml",
        "[project]\nname = 'x'\nrequires-python = '>=3.7'\ndependencies = ['tiny<2']\n",
    )
    assert versions(Environment.from_pyproject(tmp_path).resolve(quiet), "tiny") == ["1.0"]


# A script


def test_a_script_is_read(tmp_path: Path) -> None:
    script = put(
        tmp_path / "script.py",
        """\
        #!/usr/bin/env python
        # /// other
        # dependencies = ["no"]
        # ///

        # /// script
        # requires-python = ">=3.8,<3.13"
        # dependencies = [
        #   "Tiny<2",
        #
        #   "rich",
        # ]
        # [tool.uv]
        # extra-index-url = ["https://extra/simple"]
        # ///
        import tiny
        """,
    )
    assert Environment.from_script(script) == Environment(
        ">=3.8,<3.13", ["tiny<2", "rich"], extra_index_urls=["https://extra/simple"]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import tiny\n", "it has none"),
        (
            "# /// script\n# dependencies = []\n# ///\n\n# /// script\n# dependencies = []\n# ///\n",
            "it has 2",
        ),
        ("# /// script\n# dependencies = [\n# ///\n", "expected TOML in"),
        ("# /// script\n# requires-python = 'three'\n# ///\n", "expected python to be a version"),
    ],
)
def test_a_script_that_says_nothing_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(BuildError, match=words):
        Environment.from_script(put(tmp_path / "script.py", text))
