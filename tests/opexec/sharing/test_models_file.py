"""The file of `opexec up`: what it may say, and that a mistake is named by file, table and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from opexec import BatchPolicy, Environment
from opexec.sharing.models_file import FileError, read

SOURCE = 'source = "model.py:double"'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text("def double():\n    return lambda x: x * 2\n")
    return tmp_path / "models.toml"


def test_a_table_has_the_arguments_of_load(file: Path):
    file.write_text(
        f"[models.one]\n{SOURCE}\nreplicas = 2\ntimeout = 1.5\nload_timeout = 60\n"
        f'env = {{ python = "3.9", requirements = ["numpy"] }}\n[models.two]\n{SOURCE}\nenv = "envs/two"\n'
    )
    models = read(file)
    assert list(models) == ["one", "two"]
    assert models["one"] == {
        "name": "one",
        "source": f"{file.parent / 'model.py'}:double",
        "replicas": 2,
        "timeout": 1.5,
        "load_timeout": 60,
        "env": Environment("3.9", ["numpy"]),
    }
    assert models["two"]["env"] == str(file.parent / "envs/two")
    assert read(file) == models


def test_a_table_may_say_how_calls_are_joined(file: Path):
    file.write_text(f"[models.one]\n{SOURCE}\n[models.one.batch]\nmax_size = 4\nmax_delay = 0.5\n")
    assert read(file)["one"]["batch"] == BatchPolicy(max_size=4, max_delay=0.5)
    file.write_text(f"[models.one]\n{SOURCE}\nbatch = {{}}\n")
    assert read(file)["one"]["batch"] == BatchPolicy()


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("[models", "is not TOML"),
        ("", "models: expected at least one table"),
        ("[models]", "models: expected at least one table"),
        ("[model.a]", "model: expected tables"),
        ("models = {a = 1}", "models.a: expected a table, found 1"),
        (f'[models."a/b"]\n{SOURCE}', "models.a/b: a model is to be shared as 'a/b'"),
        ("[models.a]", "models.a.source: expected a text, found None"),
        ("[models.a]\nsource = 3", "models.a.source: expected a text, found 3"),
        ('[models.a]\nsource = "absent.onnx"', "models.a.source: "),
        (f"[models.a]\n{SOURCE}\nreplica = 2", "models.a.replica: is no argument of opexec.load"),
        (f"[models.a]\n{SOURCE}\nreplicas = 0", "models.a.replicas: replicas is 0"),
        (f"[models.a]\n{SOURCE}\ntimeout = -1", "models.a.timeout: timeout is -1"),
        (f"[models.a]\n{SOURCE}\nload_timeout = 0", "models.a.load_timeout: load_timeout is 0"),
        (f"[models.a]\n{SOURCE}\nname = 'b'", "models.a.name: cannot be given here"),
        (f"[models.a]\n{SOURCE}\nisolation = 'none'", "models.a.isolation: cannot be given here"),
        (f"[models.a]\n{SOURCE}\nenv = 3", "models.a.env: expected a table"),
        (f"[models.a]\n{SOURCE}\nenv = {{ pyton = '3.9' }}", "models.a.env.pyton: is no argument"),
        (f"[models.a]\n{SOURCE}\nenv = {{ python = 'x y' }}", "models.a.env: "),
        (f"[models.a]\n{SOURCE}\nretries = 1\nrestart = false", "models.a"),
        (f"[models.a]\n{SOURCE}\nbatch = 3", "models.a.batch: expected a table"),
        (f"[models.a]\n{SOURCE}\n[models.a.batch]\nsize = 3", "models.a.batch.size: is no field of"),
        (f"[models.a]\n{SOURCE}\n[models.a.batch]\nmax_size = 0", "models.a.batch.max_size: max_size is 0"),
        (f"[models.a]\n{SOURCE}\n[models.a.batch]\nmax_delay = 'x'", "models.a.batch.max_delay: max_delay"),
        (f"[models.a]\n{SOURCE}\ncheck = false\n[models.a.batch]\nmax_size = 3", "models.a"),
    ],
)
def test_a_mistake_is_named_by_file_table_and_key(file: Path, text: str, wrong: str):
    file.write_text(text)
    with pytest.raises(FileError) as error:
        read(file)
    assert str(error.value).startswith(f"{file}: {wrong}")
