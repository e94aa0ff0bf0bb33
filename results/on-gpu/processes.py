"""One process within its time: its exit code, its seconds, and the most memory that it took."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LATE = 124
GRACE = 10.0
_POLL = 0.1
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)
_LIBC = ctypes.CDLL(None)
QUERY = "--query-gpu=memory.used,clocks.sm"


@dataclass
class Card:
    """What nvidia-smi saw on the cards while a process ran; empty where there is none.

    Attributes:
        mib: the most memory that was taken of one card, by all processes.
        mhz: the highest clock of the multiprocessors.
    """

    mib: float | None = None
    mhz: float | None = None

    def see(self, line: str) -> None:
        """Take in one line, `memory, clock`; what is no number (`[N/A]`) says nothing."""
        numbers = [float(word) if word.strip().replace(".", "", 1).isdigit() else None for word in line.split(",")]
        for name, value in zip(("mib", "mhz"), numbers, strict=False):
            if value is not None:
                setattr(self, name, max(value, getattr(self, name) or 0.0))


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; 128 + N for a signal N, 124 where its time was over.
        seconds: how long it ran.
        host_mib: the most memory of one process among it and those it waited for.
        card: what was seen on the cards meanwhile.
    """

    code: int
    seconds: float
    host_mib: float
    card: Card = field(default_factory=Card)


def run(
    words: Sequence[str], environment: Mapping[str, str], folder: Path, out: Path, errors: Path, seconds: float
) -> Ended:
    """Run a command in a folder, its output in files; where its time is over it is interrupted, and soon after killed.

    It gets its own process group, so that what it started ends with it; and it dies when this process is killed.
    """
    began = time.monotonic()
    grace = min(GRACE, seconds / 10)
    with contextlib.ExitStack() as stack:
        standard = stack.enter_context(out.open("wb"))
        other = standard if errors == out else stack.enter_context(errors.open("wb"))
        process = subprocess.Popen(
            list(words),
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=standard,
            stderr=other,
            start_new_session=True,
            preexec_fn=_dies_with_parent,  # there is no other thread yet
        )
        late = False
        try:
            card = stack.enter_context(watched_card())
            ended = _waited(process, began + seconds - grace)
            if ended is None:
                late = True
                _tell(process.pid, signal.SIGINT)
                ended = _waited(process, began + seconds)
        finally:
            _tell(process.pid, signal.SIGKILL)
        if ended is None:
            ended = _waited(process, float("inf"))
        assert ended is not None
    code, host_mib = ended
    return Ended(LATE if late else code, time.monotonic() - began, host_mib, card)


def _waited(process: subprocess.Popen[bytes], until: float) -> tuple[int, float] | None:
    """Return exit code and peak memory in MiB of a process; None where it has not ended by then."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            process.returncode = code
            return (code if code >= 0 else 128 - code), usage.ru_maxrss / 1024
        if time.monotonic() >= until:
            return None
        time.sleep(_POLL)


def _tell(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _dies_with_parent() -> None:
    """Before the program starts: end with the parent, and listen to SIGINT also where the parent was told not to."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _LIBC.prctl(_DIES_WITH_PARENT, signal.SIGKILL)


@contextlib.contextmanager
def watched_card() -> Iterator[Card]:
    """Yield what nvidia-smi sees, twice a second, while the block runs."""
    card = Card()
    try:
        smi = subprocess.Popen(
            ["nvidia-smi", QUERY, "--format=csv,noheader,nounits", "-lms", "500"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=_dies_with_parent,
        )
    except OSError:
        yield card
        return
    assert smi.stdout is not None

    def read(lines: Iterator[str]) -> None:
        for line in lines:
            card.see(line)

    reader = threading.Thread(target=read, args=(smi.stdout,), daemon=True)
    reader.start()
    try:
        yield card
    finally:
        smi.kill()
        smi.wait()
        reader.join(timeout=5)
        smi.stdout.close()
