"""What the kernel counted of its out-of-memory kills, to tell one from any other SIGKILL.

A kill is counted in the control group of its victim (``memory.events``; of version 1: ``memory.oom_control``), whether that group's limit was
reached, one above it, or the machine's memory; and in ``/proc/vmstat``, for the whole machine. Kernel documentation, "Control Group v2".
"""

from __future__ import annotations

from pathlib import Path

from . import control_groups

_VMSTAT = Path("/proc/vmstat")


class OomKills:
    """The counters of one process's group and of the machine, as they were when this object was made. Reading them takes some 30 us.

    `group`: the folder of the process's own control group, where it has one; by default that of this process.
    """

    def __init__(self, group: Path | None = None, *, vmstat: Path = _VMSTAT) -> None:
        self._files = [vmstat]
        if group is None:
            found = control_groups.own("memory")
            if found is not None:
                self._files.insert(0, found[0] / ("memory.events" if found[1] == 2 else "memory.oom_control"))
        else:
            self._files.insert(0, group / "memory.events")
        self._before = [_oom_kill(file) for file in self._files]

    def account(self) -> str:
        """What to say of a process that SIGKILL ended: what was counted since, and no more than that."""
        for file, before in zip(self._files, self._before):
            after = _oom_kill(file)
            if before is None or after is None:
                continue
            where = "on this machine" if file.name == "vmstat" else "in its control group"
            if after > before:
                kills = (
                    "1 out-of-memory kill" if after == before + 1 else f"{after - before} out-of-memory kills"
                )
                return f"the kernel counted {kills} {where} while it ran (oom_kill in {file}: {before}, now {after})"
            return (
                f"the kernel counted no out-of-memory kill {where} while it ran (oom_kill in {file} is still {before}), so some process "
                "sent the signal"
            )
        return "the kernel's counts of out-of-memory kills cannot be read here, so this may have been one: see dmesg"


def _oom_kill(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None
