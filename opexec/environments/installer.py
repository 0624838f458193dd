"""Running uv: which binary, under which settings, and what it says.

uv is told everything through its own ``UV_*`` variables, so that credentials in index URLs do not show in the
process list. A variable the user has set is left alone; pip's configuration fills in those that are not set,
because uv does not read it and what `pip install` finds here opexec should find too. Nothing of the caller's
project or active environment gets through: the same request gives the same environment from every working
directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote, urlsplit

from ..credentials import without_credentials
from ..errors import BuildError
from ..files import caches
from . import pip_config, tool

# Variables that decide which versions are chosen, and from where. They are part of an environment's key.
_RESOLUTION = (
    "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX_STRATEGY",
    "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_EXCLUDE_NEWER", "UV_PRERELEASE", "UV_RESOLUTION",
    "UV_TORCH_BACKEND", "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE", "UV_NO_BUILD", "UV_NO_BUILD_PACKAGE", "UV_NO_SOURCES",
    "UV_CONFIG_FILE", "UV_NO_CONFIG",
)  # fmt: skip
# Of these, the ones that name files: what the files say belongs to the key as well.
_FILES = ("UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE", "UV_EXCLUDE", "UV_CONFIG_FILE")
# Variables that would change what an environment holds, or keep it from being built, without being part of
# its key. Those that name another interpreter, environment or project are not here: uv's command line, which
# names ours, wins over them.
_UNWANTED = (
    "PYTHONHOME",
    "PYTHONPATH",
    "UV_REQUIRE_HASHES",
    "UV_VENV_RELOCATABLE",
    "UV_VENV_SEED",
    "UV_WORKING_DIR",
)


# What uv says where the network, and not the request, is at fault.
_NETWORK = re.compile(
    r"error sending request|client error \(|tcp connect error|dns error|connection (?:refused|reset|closed)|timed out"
    r"|request failed after|network was disabled|network connectivity is disabled",
    re.IGNORECASE,
)


class UvFailed(Exception):
    """uv ended with an error; the text is what it said."""

    @property
    def lacks_network(self) -> bool:
        """Whether it failed because an index could not be reached, or because it was told not to try."""
        return bool(_NETWORK.search(str(self)))

    @property
    def is_resolution(self) -> bool:
        """Whether no versions fit the requirements: the answer of a resolver that knew all there is to know."""
        return "No solution found" in str(self) and not self.lacks_network


@dataclass(frozen=True)
class Settings:
    """What uv is told beside the command: variables added to the caller's own, and options for `uv pip` that have no variable."""

    variables: Mapping[str, str]
    pip_options: tuple[str, ...] = ()


def settings(
    environ: Mapping[str, str] = os.environ,
    prefix: str = sys.prefix,
    *,
    index_url: str | None = None,
    extra_index_urls: Sequence[str] = (),
    find_links: Sequence[str] = (),
) -> Settings:
    """What pip's configuration says and uv has no setting of its own for, and above both what is given here.

    As on pip's command line: `index_url` takes the place of the one configured, the others come before those configured.
    """
    pip = pip_config.read(environ, prefix)
    found: dict[str, str] = {}

    def fill(name: str, value: str | None, *unless: str) -> None:
        if value and not any(environ.get(other) for other in (name, *unless)):
            found[name] = value

    fill("UV_DEFAULT_INDEX", pip.index_url, "UV_INDEX_URL")
    fill("UV_INDEX", " ".join(pip.extra_index_urls), "UV_EXTRA_INDEX_URL")
    fill("UV_FIND_LINKS", ",".join(_find_link(link) for link in pip.find_links))
    fill("UV_INSECURE_HOST", " ".join(pip.trusted_hosts))
    fill("SSL_CERT_FILE", pip.cert, "SSL_CERT_DIR")
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        fill(name, pip.proxy, name.lower(), "ALL_PROXY", "all_proxy")
    if "UV_INDEX" in found:
        # pip takes the best version that any index has. uv's default is to look no further than the first index that knows
        # the name, so a mirror that holds one old version of a package would hide all others.
        fill("UV_INDEX_STRATEGY", "unsafe-best-match")
    if index_url:
        found["UV_DEFAULT_INDEX"] = index_url
        if environ.get("UV_INDEX_URL"):  # the older name of the same setting
            found["UV_INDEX_URL"] = index_url
    if extra_index_urls:
        configured = found.get("UV_INDEX") or environ.get("UV_INDEX", "")
        found["UV_INDEX"] = " ".join([*extra_index_urls, *configured.split()])
        fill("UV_INDEX_STRATEGY", "unsafe-best-match")
    if find_links:
        configured = found.get("UV_FIND_LINKS") or environ.get("UV_FIND_LINKS", "")
        found["UV_FIND_LINKS"] = ",".join(
            [*map(_find_link, find_links), *filter(None, configured.split(","))]
        )
    return Settings(found, ("--no-index",) if pip.no_index else ())


def fingerprint(found: Settings, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What of the settings decides the outcome, for an environment's key: no credentials, and files by their content."""
    # Tokens that are renewed every few hours must not have every environment built again.
    effective = {**environ, **found.variables}
    chosen = {name: without_credentials(effective[name]) for name in _RESOLUTION if effective.get(name)}
    files = {f"{name}[{i}]": path for name in _FILES for i, path in enumerate(chosen.get(name, "").split())}
    if not effective.get("UV_NO_CONFIG"):
        files["/etc/uv/uv.toml"] = "/etc/uv/uv.toml"
        user = environ.get("XDG_CONFIG_HOME") or os.path.join(
            environ.get("HOME") or os.path.expanduser("~"), ".config"
        )
        files["uv.toml"] = os.path.join(user, "uv", "uv.toml")
    for name, path in files.items():
        with contextlib.suppress(
            OSError
        ):  # most are not there; of one that has to be, uv itself says it best
            text = Path(path).read_text(encoding="utf-8", errors="replace")
            chosen[f"content of {name}"] = caches.digest(without_credentials(text))
    if found.pip_options:
        chosen["options"] = " ".join(found.pip_options)
    return chosen


def run(
    arguments: Sequence[str],
    variables: Mapping[str, str],
    *,
    on_line: Callable[[str], None] = lambda line: None,
    keep_open: Sequence[int] = (),
    stdout: IO[str] | int = subprocess.DEVNULL,
) -> None:
    """Run uv and hand on each line it says. What it prints when it is asked something goes to `stdout`.

    `keep_open`: descriptors that it inherits, so that a lock held by this process is held as long as uv runs.

    Raises:
        UvFailed: it ended with an error.
        BuildError: uv is not installed, or cannot be started.
    """
    environ = {key: value for key, value in os.environ.items() if key not in _UNWANTED}
    environ.update(variables, NO_COLOR="1", UV_NO_PROGRESS="1")
    if environ.get("UV_LINK_MODE") == "symlink":
        del environ["UV_LINK_MODE"]  # an environment must outlive `uv cache clean`
    try:
        ended = tool.follow(
            [_binary(), *arguments], environ, on_line=on_line, keep_open=keep_open, stdout=stdout
        )
    except OSError as error:
        raise BuildError(
            f"expected to run uv, but it cannot be started: {error}. Reinstall it: pip install --force-reinstall uv"
        ) from error
    if ended.status != 0:
        text = ended.said
        raise UvFailed(text if text and ended.status > 0 else f"uv {ended.how}\n{text}".strip())


def _binary() -> str:
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise BuildError(
            f"expected the package uv beside opexec, but: {error}. Install it: pip install uv"
        ) from error


def _find_link(link: str) -> str:
    """A find-links entry as UV_FIND_LINKS takes it: paths absolute, and no comma in it, because the list is split at commas."""
    if not urlsplit(link).scheme:
        link = os.path.abspath(link)
        return link if "," not in link else "file://" + quote(link)
    return link.replace(",", "%2C")


@dataclass(frozen=True)
class Uv:
    """uv at work for one environment: in a folder of its own, without the network where that fails and uv's cache suffices.

    `work`: where uv looks for the configuration of a project, and finds none.
    `locks`: descriptors of the locks that are held for as long as uv runs, even if this process is killed.
    """

    work: Path
    settings: Settings
    locks: Sequence[int]
    report: Callable[[str], None]

    def prepare(self) -> None:
        """Make the folder, anew if a killed process left one."""
        caches.remove(self.work)
        self.work.mkdir(parents=True, mode=0o700)  # requirements may have passwords in their URLs
        # uv looks for a project's configuration here and in all folders above. The first file it meets ends the search.
        (self.work / "uv.toml").write_text("# No project's settings apply here.\n", encoding="utf-8")

    def __call__(
        self,
        *arguments: str | Path,
        on_line: Callable[[str], None] = lambda line: None,
        stdout: IO[str] | int = subprocess.DEVNULL,
    ) -> None:
        """Run ``uv ARGUMENTS``. Raises UvFailed, BuildError."""
        command = ["--project", str(self.work), *map(str, arguments)]
        variables = self.settings.variables
        try:
            run(command, variables, on_line=on_line, keep_open=self.locks, stdout=stdout)
        except UvFailed as failure:
            if not failure.lacks_network or os.environ.get("UV_OFFLINE"):
                raise
            self.report("an index cannot be reached; looking whether uv's cache has all that is needed")
            try:
                offline = ["--offline", *command]
                run(offline, variables, on_line=on_line, keep_open=self.locks, stdout=stdout)
            except UvFailed:
                raise failure from None
