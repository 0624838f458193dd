"""What this process has: descriptors, threads, maps, segments, processes and memory."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

_SEGMENT = re.compile(r"/dev/shm/opexec-|/memfd:opexec")


_libc = ctypes.CDLL(None)
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h


def steady_malloc() -> None:
    """Have glibc give arrays back to the system when they are freed, and not keep an arena for each thread there ever was: what grows is then held."""
    _libc.mallopt(_M_MMAP_THRESHOLD, 64 << 10)
    _libc.mallopt(_M_ARENA_MAX, 2)


@dataclass(frozen=True)
class Holdings:
    """`descriptors` and `threads` by kind, those of segments left out; `segments` is how many bytes of them are mapped; `memory`, private bytes."""

    descriptors: Counter[str]
    threads: Counter[str]
    children: int
    named_segments: tuple[str, ...]
    segments: int
    memory: int

    @classmethod
    def now(cls) -> Holdings:
        for thread in threading.enumerate():
            if thread.name.startswith("opexec-collector"):
                thread.join()  # it lingers for a second
        gc.collect()
        _libc.malloc_trim(0)
        descriptors: Counter[str] = Counter()
        with os.scandir("/proc/self/fd") as entries:
            for entry in entries:
                link = os.readlink(entry.path)
                if "/proc/" not in link and not _SEGMENT.search(link):
                    descriptors[re.sub(r"\d+", "N", link)] += 1
        return cls(
            descriptors=descriptors,
            threads=Counter(re.sub(r"\d+", "N", thread.name) for thread in threading.enumerate()),
            children=len(psutil.Process().children()),
            named_segments=tuple(
                name for name in os.listdir("/dev/shm") if name.startswith(f"opexec-{os.getpid()}-")
            ),
            segments=_mapped(),
            memory=_private(),
        )

    def beyond(self, before: Holdings) -> list[str]:
        """What is more than it was, in words. Memory and the bytes of segments are not looked at."""
        found = []
        for what, now, then in (
            ("descriptors", self.descriptors, before.descriptors),
            ("threads", self.threads, before.threads),
        ):
            if now != then:
                found.append(f"{what}: {dict(now - then)} more, {dict(then - now)} less")
        if self.children != before.children:
            found.append(f"child processes: {self.children}, before {before.children}")
        if self.named_segments:
            found.append(f"in /dev/shm: {', '.join(self.named_segments)}")
        return found


def _mapped() -> int:
    """Bytes of segments in the maps of this process."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if _SEGMENT.search(line):
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
            total += end - start
    return total


def _private() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no RssAnon")
