"""Architectures in processes of their own, each with a bound on its time and its memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from tests.architectures.verdicts import CRASH, Verdict, verdicts

# Loaded once, before processes are forked.
_PRELOADED = ["torch", "transformers", "lottery", "matplotlib.figure", "sklearn", "tests.architectures.verdicts"]


@dataclass(frozen=True)
class Bounds:
    """What one architecture may take."""

    seconds: float
    gigabytes: float


@dataclass
class _Running:
    name: str
    process: BaseProcess
    receive: Connection
    until: float
    found: list[Verdict]


def run(names: Sequence[str], steps: Sequence[str], jobs: int, bounds: Bounds) -> Iterator[tuple[str, list[Verdict]]]:
    """Yield each architecture's verdicts as they are ready; what ran out of its bounds, or died, crashed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    waiting, running = list(reversed(names)), []
    while waiting or running:
        while waiting and len(running) < jobs:
            name = waiting.pop()
            receive, send = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(name, steps, bounds.gigabytes, send))
            process.start()
            send.close()
            running.append(_Running(name, process, receive, time.monotonic() + bounds.seconds, []))
        wait([each.receive for each in running], timeout=1.0)
        for each in list(running):
            ended = _collect(each, steps, bounds)
            if ended:
                running.remove(each)
                yield each.name, each.found


def _work(name: str, steps: Sequence[str], gigabytes: float, send: Connection) -> None:
    import torch

    from tests.architectures.listing import architectures

    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30), hard))
    torch.set_num_threads(1)
    for verdict in verdicts(architectures()[name], steps):
        send.send(verdict)


def _collect(running: _Running, steps: Sequence[str], bounds: Bounds) -> bool:
    """Read what has come, and say whether the process is through."""
    closed = False
    try:
        while running.receive.poll():
            running.found.append(running.receive.recv())
    except (EOFError, ConnectionError):
        closed = True
    late = time.monotonic() > running.until
    if not closed and not late:
        return False
    if late:
        running.process.kill()
    running.process.join()
    why = f"no end within {bounds.seconds:g} s" if late else f"its process ended with code {running.process.exitcode}"
    done = {verdict.step for verdict in running.found}
    running.found += [Verdict(step, CRASH, why, 0.0) for step in steps if step not in done]
    return True
