"""What this computer is called, and what it can do."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """Return the name of this computer's processor."""
    return _fact("model name") or platform.processor()


def instructions() -> str:
    """Return the instruction sets that the processor has, as the system names them; empty where it does not say."""
    return _fact("flags") or _fact("Features")


def usable_cores() -> int:
    """Return how many cores this process may use.

    >>> usable_cores() >= 1
    True
    """
    # only Linux says; the others give all that there are
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fact(name: str) -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""
