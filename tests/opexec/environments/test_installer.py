"""What uv is told, and how its failing is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opexec.environments import installer
from opexec.environments.installer import UvFailed, fingerprint, settings

NO_FILES = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1"}


def test_pips_sources_become_uvs() -> None:
    environ = {
        **NO_FILES,
        "PIP_INDEX_URL": "https://one/",
        "PIP_EXTRA_INDEX_URL": "https://two/ https://three/",
        "PIP_FIND_LINKS": "/a /b,c https://d/e,f",
        "PIP_NO_INDEX": "1",
        "PIP_TRUSTED_HOST": "one",
        "PIP_CERT": "/ca.pem",
        "PIP_PROXY": "http://proxy:1",
    }
    found = settings(environ, "/none")
    assert found.variables == {
        "UV_DEFAULT_INDEX": "https://one/",
        "UV_INDEX": "https://two/ https://three/",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/a,file:///b%2Cc,https://d/e%2Cf",
        "UV_INSECURE_HOST": "one",
        "SSL_CERT_FILE": "/ca.pem",
        "HTTP_PROXY": "http://proxy:1",
        "HTTPS_PROXY": "http://proxy:1",
    }
    assert found.pip_options == ("--no-index",)
    assert settings(NO_FILES, "/none") == installer.Settings({})


@pytest.mark.parametrize(
    ("uv", "pip"),
    [
        ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
        ("UV_INDEX_URL", "PIP_INDEX_URL"),
        ("UV_INDEX", "PIP_EXTRA_INDEX_URL"),
        ("UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
        ("UV_FIND_LINKS", "PIP_FIND_LINKS"),
        ("UV_INSECURE_HOST", "PIP_TRUSTED_HOST"),
        ("SSL_CERT_DIR", "PIP_CERT"),
    ],
)
def test_uvs_own_settings_are_left_alone(uv: str, pip: str) -> None:
    assert settings({**NO_FILES, pip: "/pip"}, "/none").variables
    assert settings({**NO_FILES, pip: "/pip", uv: "/uv"}, "/none") == installer.Settings({})


def test_what_is_given_comes_before_what_is_configured() -> None:
    environ = {
        **NO_FILES,
        "PIP_INDEX_URL": "https://one/",
        "PIP_EXTRA_INDEX_URL": "https://two/",
        "PIP_FIND_LINKS": "/a",
    }
    found = settings(
        environ,
        "/none",
        index_url="https://mine/",
        extra_index_urls=["https://more/"],
        find_links=["/b,c", "/d"],
    )
    assert found.variables == {
        "UV_DEFAULT_INDEX": "https://mine/",
        "UV_INDEX": "https://more/ https://two/",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "file:///b%2Cc,/d,/a",
    }
    environ = {**NO_FILES, "UV_INDEX_URL": "https://one/", "UV_INDEX": "https://two/", "UV_FIND_LINKS": "/a"}
    environ["UV_INDEX_STRATEGY"] = "first-index"
    found = settings(
        environ, "/none", index_url="https://mine/", extra_index_urls=["https://more/"], find_links=["/b"]
    )
    assert found.variables == {
        "UV_DEFAULT_INDEX": "https://mine/",
        "UV_INDEX_URL": "https://mine/",
        "UV_INDEX": "https://more/ https://two/",
        "UV_FIND_LINKS": "/b,/a",
    }


@pytest.mark.parametrize(
    ("words", "resolution", "network"),
    [
        (
            "error: No solution found when resolving dependencies\n  cause: Because a==1 has no wheels",
            True,
            False,
        ),
        (
            "error: No solution found when resolving dependencies\nhint: ... the network was disabled.",
            False,
            True,
        ),
        ("error: Request failed after 3 retries\n  cause: tcp connect error", False, True),
        ("error: Failed to fetch: `https://a/`\n  cause: dns error", False, True),
        ("error: Failed to build `a`\n  cause: no compiler", False, False),
    ],
)
def test_what_uv_failed_for_is_told_apart(words: str, resolution: bool, network: bool) -> None:
    assert (UvFailed(words).is_resolution, UvFailed(words).lacks_network) == (resolution, network)


def test_relative_find_links_do_not_depend_on_where_uv_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = settings({**NO_FILES, "PIP_FIND_LINKS": "wheels"}, "/none")
    assert found.variables == {"UV_FIND_LINKS": str(tmp_path / "wheels")}


def test_the_fingerprint_has_no_credentials_and_what_the_files_say(tmp_path: Path) -> None:
    (tmp_path / "uv").mkdir()
    config, constraints = tmp_path / "uv" / "uv.toml", tmp_path / "constraints.txt"
    environ = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "https://me:token1@one/simple",
        "UV_CONSTRAINT": str(constraints),
        "XDG_CONFIG_HOME": str(tmp_path),
    }

    def now() -> dict[str, str]:
        return fingerprint(settings(environ, "/none"), environ)

    assert now()["UV_DEFAULT_INDEX"] == "https://one/simple" and "token1" not in str(now())
    seen = [now()]
    environ["PIP_INDEX_URL"] = "https://me:token2@one/simple"
    assert now() == seen[0]
    constraints.write_text("x<1")
    seen.append(now())
    constraints.write_text("x<2")
    seen.append(now())
    config.write_text("no-index = true")
    seen.append(now())
    environ["UV_EXCLUDE_NEWER"] = "2030-01-01"
    seen.append(now())
    environ["PIP_NO_INDEX"] = "true"
    seen.append(now())
    assert len({str(each) for each in seen}) == len(seen)
    environ["UV_HTTP_TIMEOUT"] = "5"  # decides nothing about versions
    assert now() == seen[-1]


def test_uvs_failing_is_told_in_its_words() -> None:
    heard: list[str] = []
    with pytest.raises(UvFailed, match=r"unrecognized subcommand 'nonsense'") as caught:
        installer.run(["nonsense"], {}, on_line=heard.append)
    assert heard[0] in str(caught.value)
