"""Ranges of versions mean what they mean to npm, and a framework's version has one place among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opexec.packages.semver import VersionRange

NPM = json.loads((Path(__file__).parents[2] / "data" / "npm_ranges.json").read_text())


def test_ranges_mean_what_they_mean_to_npm() -> None:
    wrong = []
    for text, version, expected in NPM:
        try:
            got = version in VersionRange(text)
        except ValueError:
            got = None
        if got != expected:
            wrong.append((text, version, expected, got))
    assert len(NPM) > 400 and {expected for *_, expected in NPM} == {True, False, None}
    assert wrong == []


@pytest.mark.parametrize(
    "version, text, expected",
    [
        ("2.13.0+cpu", "2.13.0", True),
        ("1.15.5", "> 1.13.1", True),
        ("1.13", "1.13.0", True),
        ("2", ">=2", True),
        ("0.23.2.post1", "0.23.2", True),
        ("1.2.3.4", "<=1.2.3", True),
        ("v1.2.3", "1.2.3", True),
        ("1.13.1-custom", "1.13.1", True),
        # A pre-release counts as its release ...
        ("2.21.0rc1", "*", True),
        ("2.21.0rc1", ">=2.20", True),
        ("2.21.0rc1", "2.21.x", True),
        ("2.21.0rc1", "<2.21.0", False),
        ("2.21.0.dev3", "^2.21", True),
        # ... but where the range names one of that very version, their order decides.
        ("2.21.0rc1", ">=2.21.0-rc2", False),
        ("2.21.0rc2", ">=2.21.0-rc2", True),
        ("2.21.0-rc2", ">=2.21.0-rc.2", True),
        ("2.21.0rc10", ">=2.21.0-rc9", True),
        ("2.21.0", ">=2.21.0-rc2", True),
        ("2.22.0rc1", ">=2.21.0-rc2", True),
        ("2.21.0a1", ">=2.21.0-beta1", False),
        ("2.21.0b1", ">=2.21.0-alpha.1", True),
        ("2.21.0.dev9", ">=2.21.0-a1", False),
        ("2.21.0.dev9", ">=2.21.0-dev3", True),
    ],
)
def test_versions_of_frameworks(version: str, text: str, expected: bool) -> None:
    assert (version in VersionRange(text)) is expected


@pytest.mark.parametrize("version", ["", "unknown", "rc1", "-1", None, 2])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(ValueError, match="expected a version such as '2.13.0', got"):
        version in VersionRange("*")  # noqa: B015


def test_a_range_is_a_value() -> None:
    assert VersionRange(">=1") == VersionRange(">=1") != VersionRange(">=2")
    assert len({VersionRange("*"), VersionRange("*")}) == 1
    assert str(VersionRange("> 1.13.1")) == "> 1.13.1" and repr(VersionRange("*")) == "VersionRange('*')"


@given(st.text(max_size=300) | st.text(alphabet="0123456789.x*-~^<>=| ", max_size=300))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    try:
        parsed = VersionRange(text)
    except ValueError:
        return
    assert ("1.2.3" in parsed) in (True, False)
