"""Where pip is told to look for packages, for handing on to uv, which does not read pip's configuration.

pip's rules, followed here (pip documentation, "Configuration"; pip's own `_internal/configuration.py`): the
files are read in the order global (``$XDG_CONFIG_DIRS/pip/pip.conf``, ``/etc/pip.conf``), user
(``~/.pip/pip.conf``, ``$XDG_CONFIG_HOME/pip/pip.conf``), site (``<prefix>/pip.conf``), then the file named by
`PIP_CONFIG_FILE`. A later file replaces a key of an earlier one; section ``[install]`` wins over ``[global]``
whichever file it is in; ``PIP_*`` variables win over all. The user's files are left out where
`PIP_CONFIG_FILE` names a file that exists, and ``PIP_CONFIG_FILE=/dev/null`` leaves out all files.

Only the options that say where packages come from and how to get there are read; the others are about pip.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BuildError

_TRUE = frozenset({"y", "yes", "t", "true", "on", "1"})  # what pip's strtobool takes


@dataclass(frozen=True)
class PipConfig:
    """pip's sources of packages. URLs are as configured, with the user names and passwords in them."""

    index_url: str | None = None
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()  # URLs and paths of folders or HTML files
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str | None = None  # path of a PEM bundle
    proxy: str | None = None


def read(environ: Mapping[str, str] = os.environ, prefix: str = sys.prefix) -> PipConfig:
    """pip's configuration as ``<prefix>/bin/pip install`` would see it.

    Raises:
        BuildError: a configuration file cannot be parsed.
    """
    options: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in _files(environ, prefix):
        # Most of the places hold no file; configparser would try to open each.
        if path.is_file():
            for section, items in _parse(path).items():
                options[section].update(items)
    from_environment = {
        key[len("PIP_") :].lower().replace("_", "-"): value
        for key, value in environ.items()
        if key.startswith("PIP_")
    }
    merged: dict[str, str] = {}
    for layer in (options["global"], options["install"], from_environment):
        merged.update((key, value) for key, value in layer.items() if value)

    return PipConfig(
        index_url=merged.get("index-url"),
        extra_index_urls=tuple(merged.get("extra-index-url", "").split()),
        find_links=tuple(_expand(link) for link in merged.get("find-links", "").split()),
        no_index=merged.get("no-index", "").strip().lower() in _TRUE,
        trusted_hosts=tuple(merged.get("trusted-host", "").split()),
        cert=merged.get("cert"),
        proxy=merged.get("proxy"),
    )


def _files(environ: Mapping[str, str], prefix: str) -> list[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME") or os.path.expanduser("~"))
    system = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    files = [Path(folder, "pip", "pip.conf") for folder in system if folder]
    files.append(Path("/etc/pip.conf"))
    if not (named and os.path.exists(named)):
        files.append(home / ".pip" / "pip.conf")
        files.append(Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf"))
    files.append(Path(prefix, "pip.conf"))
    if named:
        files.append(Path(named))
    return files


def _parse(path: Path) -> dict[str, dict[str, str]]:
    import configparser  # 3 ms, and most users have no such file

    parser = configparser.RawConfigParser()
    try:
        parser.read(str(path), encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise BuildError(
            f"expected pip's configuration file {path} to be readable, but: {error}. "
            "Mend it, or set PIP_CONFIG_FILE to another file."
        ) from error
    return {
        section: {key.replace("_", "-").removeprefix("--"): value for key, value in parser.items(section)}
        for section in ("global", "install")
        if parser.has_section(section)
    }


def _expand(link: str) -> str:
    """As pip does it: ``~`` is the home folder if that gives a path which exists."""
    if link.startswith("~"):
        path = os.path.expanduser(link)
        if os.path.exists(path):
            return path
    return link
