"""`opexec packages`: those that are unpacked in the cache."""

from __future__ import annotations

from ...group import CommandFolder

command = CommandFolder(
    __name__,
    __path__,
    name="packages",
    short_help="List and remove the packages that are unpacked in the cache.",
    help="See what zipped packages take that were unpacked to be run, and remove them.",
    epilog="A package that was removed is unpacked again when it is next used; its zip is not touched.",
    no_args_is_help=True,
)
