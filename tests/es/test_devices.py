"""Several devices: members are spread over them, and the bits are those of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from es.device import as_many_as_divide, choose_devices
from pruning.errors import DeviceError

ROOT = Path(__file__).parents[2]

PROGRAM = """
import hashlib
import jax
from tests.es.helpers import job, trainer

def bits(count, jobs, population):
    made = trainer(devices=tuple(jax.devices()[:count]), population=population, generations=6, eval_every=3)
    digest = hashlib.sha256()
    for trained in made.train(jobs, frozenset({"std"})):
        for arrays in (trained.params, trained.std):
            for name in sorted(arrays):
                digest.update(arrays[name].tobytes())
        digest.update(repr(trained.history).encode())
    return digest.hexdigest()

assert len(jax.devices()) == 4
from pruning.jobs import Budget
for jobs in ([job(0, 20, Budget(0, 6))], [job(seed, 20, Budget(0, 6)) for seed in range(2)]):
    assert bits(1, jobs, 16) == bits(4, jobs, 16)
assert bits(1, jobs, 16) != bits(1, jobs, 12)
print("the same bits")
"""


def test_four_devices_give_the_bits_of_one():
    flags = "--xla_force_host_platform_device_count=4"  # and programs as users get them
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=200)
    assert done.stdout == "the same bits\n", done.stderr


def test_as_many_devices_as_divide_the_population():
    devices = list("abcd")
    assert as_many_as_divide(devices, 16) == ("a", "b", "c", "d")
    assert as_many_as_divide(devices, 18) == ("a", "b", "c")
    assert as_many_as_divide(devices, 7) == ("a",)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gpu0", "unknown device 'gpu0'"), ("cuda:x", "unknown device"), ("cpu:99", "JAX sees 1"), ("cuda", "no CUDA")],
)
def test_wrong_devices(name, message):
    if name == "cuda" and jax.default_backend() == "gpu":
        pytest.skip("there is a CUDA device")
    with pytest.raises(DeviceError, match=message):
        choose_devices(name)
