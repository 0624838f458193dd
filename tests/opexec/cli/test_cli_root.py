"""The command as a whole: it is found, it explains itself, and it costs nothing to those who only import opexec."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import opexec as library
from opexec.cli.group import CommandFolder
from opexec.cli.root import command as root
from tests.command import REPOSITORY, on_terminal, opexec


def every_command() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(group: click.Group, path: tuple[str, ...]) -> None:
        context = click.Context(group)
        for name in group.list_commands(context):
            found.append((*path, name))
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                walk(command, (*path, name))

    walk(root, ())
    return found


def test_version() -> None:
    done = opexec("--version")
    assert done.out == f"opexec {library.__version__} (Python {'.'.join(map(str, sys.version_info[:3]))})\n"


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    context = click.Context(root, info_name="opexec")
    command: click.Command = root
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command = found
        context = click.Context(command, info_name=name, parent=context)
    text = command.get_help(context)
    assert text.startswith(f"Usage: opexec {' '.join(path)}")
    assert command.short_help, "a line for the list of commands"
    assert len(command.short_help) <= 62, "longer ones are cut there"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_help_lists_the_commands_and_fits_the_terminal() -> None:
    lines = on_terminal(60, "--help")
    assert max(map(len, lines)) <= 60
    assert {line.split()[0] for line in lines if line.startswith("  ")} >= {"env", "doctor"}


def test_an_unknown_command_is_a_mistake_in_the_command_line() -> None:
    done = opexec("dcotor")
    assert (done.status, done.out) == (2, "") and "No such command 'dcotor'" in done.err


def test_a_module_in_a_folder_is_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_commands"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "say_hello.py").write_text(
        "import click\n@click.command()\n@click.argument('name')\ndef command(name):\n    print('hello', name)\n"
    )
    (package / "broken.py").write_text("raise RuntimeError('only imported when it is asked for')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = CommandFolder("some_commands", [str(package)])
    context = click.Context(folder)
    assert folder.list_commands(context) == ["broken", "say-hello"]
    assert folder.get_command(context, "absent") is None
    command = folder.get_command(context, "say-hello")
    assert command is not None and [parameter.name for parameter in command.params] == ["name"]


def test_importing_opexec_does_not_import_what_only_the_command_needs() -> None:
    program = "import opexec, sys; print(sorted({'click', 'rich', 'opexec.cli', 'opexec.machine.doctor'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_commands_in_the_docs_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "docs" / "cli.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 5
    monkeypatch.chdir(tmp_path)
    for file in ("requirements.txt", "tf115.lock"):
        (tmp_path / file).write_text("")
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "opexec"
        command: click.Command = root
        context = click.Context(root)
        while isinstance(command, click.Group):
            name, command, arguments = command.resolve_command(context, arguments)  # type: ignore[assignment]
        command.make_context(name, arguments)  # raises a UsageError for what it does not know
