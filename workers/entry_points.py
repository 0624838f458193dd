"""Entry points of the packages installed here, read where every Python >= 3.7 keeps them: importlib.metadata came with 3.8."""

from __future__ import annotations

import configparser
import os
import sys

_SUFFIXES = (".dist-info", ".egg-info")


def of_group(group):
    """``{name: "module" or "module:attribute"}`` of a group; of two with one name, the first on ``sys.path`` counts."""
    found: dict = {}
    for folder in sys.path:
        try:
            entries = sorted(os.listdir(folder or "."))
        except OSError:  # a zip archive, or a folder that is not there
            continue
        for entry in entries:
            if entry.endswith(_SUFFIXES):
                for name, value in _read(os.path.join(folder, entry, "entry_points.txt"), group):
                    found.setdefault(name, value)
    return found


def _read(path, group):
    parser = configparser.ConfigParser(delimiters=("=",), strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore  # names keep their case
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        pairs = parser.items(group)
    except (OSError, UnicodeDecodeError, configparser.Error):  # none, or no such group in it
        return []
    # After the value there may be the extras that it needs.
    return [(name.strip(), value.partition("[")[0].strip()) for name, value in pairs]
