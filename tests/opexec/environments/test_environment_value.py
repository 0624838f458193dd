"""The value `Environment`: what is equal, what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.credentials import without_credentials
from opexec.environment import Environment
from opexec.environments.requirement import normalised
from opexec.errors import BuildError


def test_equal_requests_are_equal_values() -> None:
    one = Environment("3.7", ["Typing_Extensions >=4, <5", "numpy", "numpy"])
    other = Environment(" 3.7 ", ("numpy", "typing-extensions<5,>=4"))
    assert one == other and hash(one) == hash(other)
    assert one.requirements == ("numpy", "typing-extensions<5,>=4")
    assert one != Environment("3.8", one.requirements)
    with pytest.raises(AttributeError):
        one.python = "3.8"  # type: ignore[misc]


@given(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,6}[A-Za-z0-9])?", fullmatch=True),
    st.lists(
        st.tuples(
            st.sampled_from(["==", "!=", "<=", ">=", "<", ">"]),
            st.sampled_from(["", " ", "  "]),
            st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,2}){0,3}", fullmatch=True).filter(str.isascii),
        ),
        max_size=4,
    ),
    st.sampled_from([",", ", ", " ,"]),
)
def test_plain_requirements_are_normalised_as_packaging_does(
    name: str, bounds: list[tuple[str, str, str]], comma: str
) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    text = f"{name} {comma.join(''.join(bound) for bound in bounds)}"
    expected = Requirement(text)
    expected.name = canonicalize_name(expected.name)
    assert normalised(text) == str(expected)


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("Torch[B_b,a] ~= 1.0", "torch[a,b-b]~=1.0"),
        ("x==1.0.*,!=1.0.3+cpu", "x!=1.0.3+cpu,==1.0.*"),
        ("X;python_version<'3.8'", 'x; python_version < "3.8"'),
        ("X @ file:///a/b", "x @ file:///a/b"),
    ],
)
def test_other_requirements_are_normalised_too(requirement: str, expected: str) -> None:
    # Whether there is a space before "@" and ";" differs between versions of packaging.
    assert normalised(requirement).replace(" ", "") == expected.replace(" ", "")
    assert normalised(expected) == normalised(requirement)


@pytest.mark.parametrize(
    ("python", "requirements", "words"),
    [
        (3.10, [], "Write it in quotes: as a number, 3.10 is 3.1"),
        ("three", [], "expected python to be a version"),
        ("", [], "expected python to be a version"),
        (None, "numpy", r"Write \['numpy'\]"),
        (None, ["numpy=1"], "got 'numpy=1'"),
        (None, ["./package"], "PEP 508"),
        (None, ["x @ ./package"], "file:///absolute/path"),
        (None, ["x @ file:package"], "file:///absolute/path"),
        (None, ["-r requirements.txt"], "PEP 508"),
        (None, [7], "got 7, a int"),
        (None, 7, "expected a list of requirements; got 7, a int"),
    ],
)
def test_what_is_no_request_is_refused_at_once(python: str, requirements: list[str], words: str) -> None:
    with pytest.raises(BuildError, match=words):
        Environment(python, requirements)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"constraints": "numpy<2"}, r"expected a list of constraints; got the text 'numpy<2'"),
        ({"constraints": ["numpy=2"]}, "got 'numpy=2'"),
        ({"find_links": "/wheels"}, r"Write \['/wheels'\]"),
        ({"find_links": [""]}, "expected a folder or a URL in find_links; got ''"),
        ({"find_links": [7]}, "expected a folder or a URL in find_links; got 7"),
        ({"index_url": "pypi"}, "expected index_url to be the URL of a package index"),
        ({"index_url": ["https://a/"]}, "expected index_url to be the URL"),
        ({"extra_index_urls": ["https://a/ https://b/"]}, "expected extra_index_urls to be the URL"),
        ({"extra_index_urls": "https://a/"}, "expected a list of extra_index_urls"),
        ({"env_vars": [("A", "1")]}, "expected env_vars to be a mapping"),
        ({"env_vars": {"A": 1}}, r"expected env_vars\['A'\] to be text; got 1, a int. Write it in quotes"),
        ({"env_vars": {"A=B": "1"}}, "got 'A=B'. Names are text without '='"),
        ({"env_vars": {"": "1"}}, "expected the name of an environment variable"),
        ({"lock": "/no/such.lock"}, "expected lock to be the path of a file; there is none at /no/such.lock"),
        ({"lock": 7}, "expected lock to be the path of a file; got 7, a int"),
        (
            {"conda": __file__, "requirements": ["x"]},
            "alone, because the file says all.*; got requirements too",
        ),
        ({"conda": __file__, "python": "3.8"}, "got python too"),
        ({"conda": __file__, "lock": __file__}, "got lock too"),
    ],
)
def test_other_arguments_are_checked_too(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(BuildError, match=words):
        Environment(**arguments)  # type: ignore[arg-type]


FULL = {
    "python": ">=3.8",
    "requirements": ["a", "b<2"],
    "constraints": ["c<3"],
    "find_links": ["/wheels"],
    "index_url": "https://one/simple",
    "extra_index_urls": ["https://two/simple", "file:///three"],
    "env_vars": {"B": "2", "A": "1"},
}


def test_a_request_makes_an_equal_environment() -> None:
    full = Environment(**FULL)  # type: ignore[arg-type]
    assert Environment().request() == {}
    assert full.request() == {**FULL, "env_vars": {"A": "1", "B": "2"}}
    assert Environment(**json.loads(json.dumps(full.request()))) == full


@pytest.mark.parametrize("name", FULL)
def test_every_argument_counts(name: str) -> None:
    full = Environment(**FULL)  # type: ignore[arg-type]
    other = Environment(**{key: value for key, value in FULL.items() if key != name})  # type: ignore[arg-type]
    assert full != other and len({full, other}) == 2


def test_copies_are_equal() -> None:
    full = Environment(**FULL)  # type: ignore[arg-type]
    copies = [pickle.loads(pickle.dumps(full)), copy.deepcopy(full), dataclasses.replace(full)]
    assert all(each == full and hash(each) == hash(full) for each in copies)
    assert dataclasses.replace(full, python="3.9").env_vars == {"A": "1", "B": "2"}


def test_its_variables_do_not_change() -> None:
    given = {"A": "1"}
    environment = Environment(env_vars=given)
    given["A"] = "2"
    assert environment.env_vars == {"A": "1"} and dict(environment.env_vars) == {"A": "1"}
    assert environment.env_vars.get("B") is None and repr(environment.env_vars) == "{'A': '1'}"
    with pytest.raises(TypeError):
        environment.env_vars["A"] = "2"  # type: ignore[index]
    assert Environment(env_vars={"A": "1", "B": "2"}) == Environment(env_vars={"B": "2", "A": "1"})


def test_paths_do_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.lock").write_text("")
    environment = Environment(find_links=["wheels", Path("~/w"), "https://a/b"], lock="a.lock")
    assert environment.find_links == (str(tmp_path / "wheels"), os.path.expanduser("~/w"), "https://a/b")
    assert environment.lock == str(tmp_path / "a.lock")


# What is secret


SECRET = "https://me:se:cr@t@example.org/simple"


def test_shown_it_has_no_credentials() -> None:
    environment = Environment(
        requirements=["x @ " + SECRET.replace("simple", "x-1.0.whl")],
        index_url=SECRET,
        extra_index_urls=[SECRET],
        find_links=[SECRET],
        env_vars={"TOKEN": "secret"},
    )
    for text in (repr(environment), str(environment), repr([environment])):
        assert "me:" not in text and "cr@t" not in text and "secret" not in text
    assert repr(environment) == (
        "Environment(requirements=['x @ https://example.org/x-1.0.whl'], find_links=['https://example.org/simple'], "
        "index_url='https://example.org/simple', extra_index_urls=['https://example.org/simple'], env_vars={'TOKEN': '...'})"
    )
    assert environment.index_url == SECRET and environment.request()["find_links"] == [SECRET]


def test_shown_it_has_what_was_given() -> None:
    assert repr(Environment("3.9", ["numpy<2"])) == "Environment(python='3.9', requirements=['numpy<2'])"
    assert eval(repr(Environment())) == Environment()


@pytest.mark.parametrize(
    "arguments",
    [
        {"index_url": f"{SECRET} x"},
        {"extra_index_urls": SECRET},
        {"requirements": [f"no requirement {SECRET}"]},
        {"find_links": SECRET},
    ],
)
def test_what_is_refused_is_told_without_credentials(arguments: dict[str, object]) -> None:
    with pytest.raises(BuildError) as caught:
        Environment(**arguments)  # type: ignore[arg-type]
    assert "example.org" in str(caught.value)
    assert "cr@t" not in str(caught.value) and "cr@t" not in repr(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://me:x@a.org/b, not https://a.org/c@d", "at https://a.org/b, not https://a.org/c@d"),
        (
            "['https://a.org', 'me@b.org'] http://a.org me@b.org",
            "['https://a.org', 'me@b.org'] http://a.org me@b.org",
        ),
        ("https://conda.example/t/tk-123/forge/linux-64", "https://conda.example/t/.../forge/linux-64"),
        ("git+https://token@a.org/b.git@v1", "git+https://a.org/b.git@v1"),
        ("/home/t/x @ file:///t/y/z@1", "/home/t/x @ file:///t/y/z@1"),
    ],
)
def test_credentials_are_found_in_urls_alone(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
