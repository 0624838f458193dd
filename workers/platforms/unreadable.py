"""What to say of a file that a framework cannot load: by which version, why, and that another version may be what it needs."""

from __future__ import annotations


def unreadable(reader, source, why, *requirements, advice=""):
    """A RuntimeError. `reader` is the framework with its version (``"torch 2.1.0"``), `requirements` an environment for such a file.

    `source` is the file's path, and what the file itself tells of who wrote it. `advice`, a sentence, says what the file should be.
    """
    sentences = ["{} cannot load {}: {}".format(reader, source, ended(why))]
    if advice:
        sentences.append(advice)
    sentences.append(
        "If another version wrote it, give the model an environment that has it: Environment(requirements={})".format(
            list(requirements)
        )
    )
    return RuntimeError(" ".join(sentences))


def first_line(error):
    """The first line of an error's message: many a framework has a traceback of its own behind it."""
    return str(error).strip().partition("\n")[0]


def with_kind(error, message):
    """For errors of all sorts, whose message alone may say nothing (a KeyError's is the key)."""
    return "{}: {}".format(type(error).__name__, message)


def ended(error):
    """An error's message as a sentence, after which another may follow."""
    words = str(error).strip()
    return words if words.endswith((".", "!", "?")) else words + "."
