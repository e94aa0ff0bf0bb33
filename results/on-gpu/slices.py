"""The slices: what runs, in the order of its worth, for how long at most, and how small in a rehearsal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Slice:
    """One command with its time.

    Attributes:
        name: what it is called in the summary; its log is NAME.log.
        least: minutes under which it is not begun.
        most: minutes after which it is ended.
        command: a program (`lottery`, `pytest` or `python`) and its words, in which {device}, {data}, {runs} (a folder
            of its own) and {run:NAME} (what the slice NAME found) are filled in.
        sizes: constants of modules that the command runs with, as `lottery.bench.sparse:BATCHES=(1,128)`.
        tiny: words that make a rehearsal small; they come last.
        tiny_sizes: constants of a rehearsal, instead of `sizes`.
        after: the slice whose run it goes on with.
        json: whether its standard output is one JSON object, kept as NAME.json; so it is after `--json`, too.
    """

    name: str
    least: float
    most: float
    command: tuple[str, ...]
    sizes: tuple[str, ...] = ()
    tiny: tuple[str, ...] = ()
    tiny_sizes: tuple[str, ...] = ()
    after: str = ""
    json: bool = False

    @property
    def prints_json(self) -> bool:
        """Whether its standard output is one JSON object."""
        return self.json or "--json" in self.command


def words(text: str) -> tuple[str, ...]:
    """Return the words of a command."""
    return tuple(text.split())


def marked(folder: str, mark: str = "cuda") -> tuple[str, ...]:
    """Return the test files of a folder of the checkout in which some test has this mark."""
    found = (path for path in (ROOT / folder).rglob("*.py") if f"mark.{mark}" in path.read_text(encoding="utf-8"))
    return tuple(str(path.relative_to(ROOT)) for path in sorted(found) if path.name.startswith("test_"))


# The kernels' promises are no `test_` files: elsewhere another file runs them in triton's interpreter.
KERNELS = words("tests/pruning/sparse_kernels.py tests/pruning/sparse_modules_on_kernels.py")
ON_A_DEVICE = "tests/lottery/test_on_a_device.py"
SEARCH = words("prune --device {device} --out {runs} --json")
SPARSE = "lottery.bench.sparse:"
ES = "lottery.bench.es:"
METHODS = "lottery.bench.methods:"
SEARCH_LOOPS = "lottery.bench.loops."

SLICES: tuple[Slice, ...] = (
    Slice("machine", 0.2, 1.0, words("python results/on-gpu/machine.py {device}"), json=True),
    Slice(
        "prune-digits",
        0.4,
        1.0,
        ("lottery", *SEARCH, "--levels", "6"),
        tiny=words("--levels 1 --steps 20 --set tolerance=1"),
    ),
    Slice("kernels", 0.7, 2.0, ("pytest", *KERNELS), tiny=("-k", "empty or dispatcher")),
    Slice(
        "tests",
        0.7,
        3.0,
        ("pytest", *marked("tests/lottery"), *marked("tests/es"), "-m", "cuda", "-k", "not es-on and not optax-on"),
        tiny=("-m", "not cuda and not slow", "-k", "gd-on-cpu"),
    ),
    Slice(
        "tests-jax",
        0.7,
        2.5,
        ("pytest", ON_A_DEVICE, "-m", "cuda", "-k", "es-on or optax-on"),
        tiny=("-m", "not cuda and not slow", "-k", "es-on-cpu and promises"),
    ),
    Slice(
        "bench-search",
        1.0,
        3.0,
        words("lottery bench search --data synthetic --device {device} --repeats 3 --json"),
        tiny=words("--repeats 1"),
        tiny_sizes=(
            f"{SEARCH_LOOPS}lenet:EXAMPLES=(256,128)",
            f"{SEARCH_LOOPS}commands:LEVELS=3",
            f"{SEARCH_LOOPS}commands:EPOCHS=1",
            f"{SEARCH_LOOPS}replicates:STEPS=10",
            f"{SEARCH_LOOPS}images:EXAMPLES=80",
            f"{SEARCH_LOOPS}images:BATCH=4",
            "lottery.bench.search:NETWORKS=('conv-2',)",
        ),
    ),
    Slice(
        "ladder",
        1.0,
        3.0,
        ("lottery", *SEARCH, *words("--recipe controls-lenet-quick --data {data} --replicates 5")),
        tiny=words("--replicates 2 --levels 3 --steps 10 --set eval_every=10 --set validation_size=100"),
    ),
    Slice(
        "controls",
        0.7,
        3.0,
        words(
            "lottery ablate {run:ladder} --kind reinit --kind random-mask --kind shuffle-mask --kind sign-reinit "
            "--levels 3,6,8,9 --device {device} --json"
        ),
        tiny=words("--levels 3"),
        after="ladder",
    ),
    Slice(
        "bench-methods",
        0.7,
        1.5,
        words("lottery bench methods --data {data} --device {device} --repeats 2 --json"),
        tiny=words("--repeats 1"),
        tiny_sizes=(f"{METHODS}SHAPES={{'a.weight':(64,64)}}", f"{METHODS}JOBS=3", f"{METHODS}STEPS=2"),
    ),
    Slice(
        "bench-es",
        0.7,
        2.0,
        words("lottery bench es --data synthetic --device {device} --repeats 3 --json"),
        tiny=words("--repeats 1"),
        tiny_sizes=(f"{ES}POPULATION=4", f"{ES}BATCH=8", f"{ES}PIECE=4", f"{ES}DENSITIES=(1.0,0.05)"),
    ),
    Slice(
        "cnn-generation",
        0.5,
        1.5,
        (
            "lottery",
            *SEARCH,
            *words("--recipe lange2023-mnist-cnn --data {data} --replicates 1"),
            *words("--levels 1 --generations 40 --set eval_every=20"),
        ),
        tiny=words("--population 4 --batch-size 16 --generations 2 --set eval_every=1 --set validation_size=100"),
    ),
    Slice(
        "bench-sparse",
        0.8,
        2.5,
        words("lottery bench sparse --device {device} --repeats 3 --json"),
        sizes=(f"{SPARSE}BATCHES=(1,128,1024)", f"{SPARSE}DENSITIES=(0.2,0.1,0.05,0.02)"),
        tiny_sizes=(
            f"{SPARSE}SHAPES=((40,30),)",
            f"{SPARSE}BATCHES=(1,8)",
            f"{SPARSE}DENSITIES=(0.5,0.05)",
            f"{SPARSE}TRAINING=(32,16,8)",
            f"{SPARSE}NETWORK='mlp'",
            f"{SPARSE}NETWORK_BATCHES=(4,)",
            f"{SPARSE}_SECONDS=0.0",
            f"{SPARSE}_CHOICE_SECONDS=0.0",
        ),
    ),
    Slice(
        "prune-es",
        0.4,
        1.0,
        ("lottery", *SEARCH, *words("--trainer es --criterion snr --levels 3")),
        tiny=words("--levels 1 --generations 4 --population 4 --set eval_every=2 --set tolerance=1"),
    ),
    Slice(
        "prune-optax",
        0.4,
        1.0,
        ("lottery", *SEARCH, *words("--trainer optax --levels 6")),
        tiny=words("--levels 1 --steps 20 --set tolerance=1"),
    ),
    Slice(
        "bench-init",
        0.8,
        2.0,
        words("lottery bench init --device {device} --repeats 1 --json"),
        tiny_sizes=("lottery.bench.starts:WIDTH=32", "lottery.bench.starts:LARGE=64"),
    ),
    Slice(
        "bench-sparse-whole",
        3.0,
        7.0,
        words("lottery bench sparse --device {device} --repeats 3 --json"),
        tiny_sizes=(
            f"{SPARSE}SHAPES=((8,6),)",
            f"{SPARSE}BATCHES=(2,)",
            f"{SPARSE}DENSITIES=(0.5,)",
            f"{SPARSE}TRAINING=(8,8,4)",
            f"{SPARSE}NETWORK='mlp'",
            f"{SPARSE}NETWORK_BATCHES=(4,)",
            f"{SPARSE}_SECONDS=0.0",
            f"{SPARSE}_CHOICE_SECONDS=0.0",
        ),
    ),
)


PLACE = re.compile(r"\{(device|data|runs|run:[\w-]+)\}")


def filled(words: tuple[str, ...], fill: Callable[[str], str]) -> list[str]:
    """Return the words with `fill(NAME)` for every {NAME}: device, data, runs, run:SLICE."""
    return [PLACE.sub(lambda found: fill(found[1]), word) for word in words]
