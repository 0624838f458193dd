"""`opexec doctor`"""

from __future__ import annotations

import click

from ...ipc import VERSION
from .. import show

_MARKS = {"good": ("ok", "green"), "limit": ("limit", "yellow"), "broken": ("BROKEN", "bold red")}


@click.command(short_help="Tell what this machine can do, and what to change.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, for programs; sizes in bytes.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Tell what this machine can do for opexec: interpreters, memory, cores, GPUs, cache; and what to change where that limits it.

    The exit status is 1 if something keeps opexec from working.
    """
    from ...machine import doctor

    with show.working("asking the interpreters of this machine what they are"):
        report = doctor.examine()
    if as_json:
        findings = [
            {"topic": each.topic, "level": each.level, "fact": each.fact, "cure": each.cure}
            for each in report.findings
        ]
        show.as_json({"version": VERSION, "works": report.works, "findings": findings, "facts": report.facts})
    else:
        show.findings([(*_MARKS[each.level], each.topic, each.fact, each.cure) for each in report.findings])
        limits = sum(each.level == "limit" for each in report.findings)
        broken = sum(each.level == "broken" for each in report.findings)
        if broken:
            show.note(f"opexec cannot work here: {broken} thing{'s' * (broken != 1)} to mend, above")
        elif limits:
            show.note(f"works here; {limits} thing{'s' * (limits != 1)} could be better, above")
        else:
            show.note("works here, and nothing limits it")
    ctx.exit(0 if report.works else 1)
