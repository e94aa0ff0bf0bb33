"""What machine this is, as JSON; fails where something that the toolkit needs is missing or sees no such device."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# By the name that is imported: what pyproject.toml asks for, and what the tests need beside.
NEEDED = {
    "evosax": "evosax",
    "dotmap": "dotmap",  # of evosax
    "filelock": "filelock",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "matplotlib": "matplotlib",
    "ml_dtypes": "ml-dtypes",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "optax": "optax",
    "rich": "rich",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "threadpoolctl": "threadpoolctl",
    "torch": "torch",
    "torchax": "torchax",
    "tqdm": "tqdm",
    "typer": "typer",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
}
USEFUL = {"triton": "triton", "xdist": "pytest-xdist", "pytest_timeout": "pytest-timeout", "gymnax": "gymnax"}
# One module from each end of the house: what these import is all that the slices need.
MODULES = ("lottery.cli.app", "lottery.trainers.gd.setup", "lottery.trainers.es.setup", "lottery.trainers.optax.setup")
ASKED = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,clocks.max.mem,memory.total,power.limit"


def said(*words: str) -> str | None:
    """Return what a command prints, or None where it cannot run."""
    try:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def installed(name: str) -> str | None:
    """Return the version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def problem(call: Any) -> str | None:
    """Return in one line why something fails, or None where it does not."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
    return None


def cards() -> list[dict[str, str]]:
    """Return what nvidia-smi says of each card."""
    table = said("nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader")
    rows = [line.split(", ") for line in (table or "").splitlines()]
    return [dict(zip(ASKED.split(","), row, strict=False)) for row in rows]


def with_torch(device: str) -> dict[str, Any]:
    """Return what PyTorch says of itself; a small product on the device must work."""
    import torch

    product = torch.ones(8, 8, device=device) @ torch.ones(8, 8, device=device)
    assert float(product.sum()) == 512
    facts = {"cuda": torch.version.cuda, "threads": torch.get_num_threads()}
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        facts |= {
            "card": card.name,
            "capability": f"{card.major}.{card.minor}",
            "processors": card.multi_processor_count,
        }
        facts |= {"cudnn": torch.backends.cudnn.version()}
    return facts


def with_jax(device: str) -> dict[str, Any]:
    """Return what JAX says of itself; a small product on the device must work."""
    import jax
    import jax.numpy as jnp

    first = jax.devices("gpu" if device == "cuda" else "cpu")[0]
    with jax.default_device(first):
        assert float((jnp.ones((8, 8)) @ jnp.ones((8, 8))).sum()) == 512
    return {"devices": [str(each) for each in jax.devices()], "kind": first.device_kind}


def main(device: str) -> int:
    """Print the facts, and return whether something is wrong."""
    packages = NEEDED | USEFUL
    missing = {name: "is not installed" for name in packages if find_spec(name) is None}
    wrong: dict[str, str] = {name: why for name, why in missing.items() if name in NEEDED}
    for name in MODULES:
        if why := problem(lambda name=name: importlib.import_module(name)):
            wrong[name] = why
    facts: dict[str, Any] = {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "commit": said("git", "-c", "safe.directory=*", "rev-parse", "HEAD"),
        "cards": cards(),
        "packages": {package: installed(package) for package in packages.values()},
        "missing": list(missing),
    }
    for name, look in (("torch", with_torch), ("jax", with_jax)):
        found: dict[str, Any] = {}
        if why := problem(lambda look=look, found=found: found.update(look(device))):
            wrong[f"{name} on {device}"] = why
        facts[name] = found
    facts["wrong"] = wrong
    print(json.dumps(facts, indent=1))
    for name, why in wrong.items():
        print(f"{name}: {why}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
