"""pip's configuration, read as pip reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opexec.environments import pip_config
from opexec.environments.pip_config import PipConfig
from opexec.errors import BuildError


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The variables of a user whose files are all under tmp_path, apart from /etc/pip.conf: that is this machine's, so the
    tests set every key they look at."""
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_CONFIG_DIRS": str(tmp_path / "xdg"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def test_later_files_win_over_earlier_ones(tmp_path: Path, environ: dict[str, str]) -> None:
    def links() -> tuple[str, ...]:
        return pip_config.read(environ, str(tmp_path / "prefix")).find_links

    places = [
        tmp_path / "home" / ".pip" / "pip.conf",
        tmp_path / "config" / "pip" / "pip.conf",
        tmp_path / "prefix" / "pip.conf",
    ]
    for place in places:
        write(place, "[global]", f"find-links = {place}")
        assert links() == (str(place),)

    named = tmp_path / "named.conf"
    write(named, "[global]", "find_links = /named", "[install]", "find-links = /install")
    environ["PIP_CONFIG_FILE"] = str(named)
    assert links() == ("/install",)
    environ["PIP_FIND_LINKS"] = "/variable /other"
    assert links() == ("/variable", "/other")


def test_a_named_file_stands_for_the_users_own(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "config" / "pip" / "pip.conf", "[global]", "index-url = https://user/")
    environ["PIP_CONFIG_FILE"] = str(tmp_path / "gone")
    assert pip_config.read(environ, "/none").index_url == "https://user/"
    write(tmp_path / "gone", "[global]", "timeout = 5")
    assert pip_config.read(environ, "/none").index_url != "https://user/"
    environ["PIP_CONFIG_FILE"] = os.devnull
    assert pip_config.read(environ, "/none") == PipConfig()


def test_all_that_says_where_packages_are(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "home" / "wheels").mkdir(parents=True)
    environ["PIP_CONFIG_FILE"] = str(tmp_path / "named.conf")
    write(
        tmp_path / "named.conf",
        "[global]",
        "index-url = https://user:secret@one/simple",
        "extra-index-url =",
        "    https://two/simple",
        "    https://three/simple",
        "no-index = Yes",
        "trusted-host = two three",
        "cert = /ca.pem",
        "proxy = http://proxy:3128",
        "[install]",
        "find-links = https://four/ %(not)s",
        "[wheel]",
        "index-url = https://not/this",
    )
    assert pip_config.read(environ, "/none") == PipConfig(
        index_url="https://user:secret@one/simple",
        extra_index_urls=("https://two/simple", "https://three/simple"),
        find_links=("https://four/", "%(not)s"),
        no_index=True,
        trusted_hosts=("two", "three"),
        cert="/ca.pem",
        proxy="http://proxy:3128",
    )


def test_home_is_expanded_as_pip_does(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", environ["HOME"])
    (tmp_path / "home" / "wheels").mkdir(parents=True)
    environ["PIP_FIND_LINKS"] = "~/wheels ~/none"
    assert pip_config.read(environ, "/none").find_links == (str(tmp_path / "home" / "wheels"), "~/none")


def test_empty_values_count_for_nothing(environ: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "config" / "pip" / "pip.conf", "[global]", "index-url = https://one/")
    environ["PIP_INDEX_URL"] = ""
    assert pip_config.read(environ, "/none").index_url == "https://one/"


def test_a_file_that_cannot_be_parsed_is_named(tmp_path: Path, environ: dict[str, str]) -> None:
    write(tmp_path / "config" / "pip" / "pip.conf", "no section here")
    with pytest.raises(BuildError, match=r"config/pip/pip.conf to be readable, but: (.|\n)*Mend it"):
        pip_config.read(environ, "/none")
