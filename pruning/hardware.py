"""What this computer is called."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """Return the name of this computer's processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
