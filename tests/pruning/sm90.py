"""Compiles Triton kernels for an H100 or H200 on a machine that has none, and says what the code contains."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning.sparse.kernels.toolchain import LAUNCH, triton


@dataclass(frozen=True)
class Code:
    """What was compiled.

    Attributes:
        registers: of a thread.
        spilled: bytes of local memory of a thread; anything but 0 is slow.
        wgmma, mma: products by a group of four warps, and by one warp, on the tensor cores.
        asynchronous: copies to shared memory that do not wait.
        vectors: loads of 16 bytes from global memory.
        shuffles: conversions between layouts within loops; each goes through shared memory, in every step.
    """

    registers: int
    spilled: int
    wgmma: int
    mma: int
    asynchronous: int
    vectors: int
    shuffles: int


def compiled(
    kernel: Any,
    types: Mapping[str, str],
    constants: Mapping[str, Any],
    aligned: tuple[str, ...],
    cubin: Path,
    **options: Any,
) -> Code:
    """Compile a kernel.

    Args:
        kernel: a jitted function.
        types: triton's type of each argument that is no constant, in order.
        constants: the value of each argument that is one.
        aligned: arguments that are multiples of 16 at run time; pointers all are.
        cubin: a file to write the machine code to.
        options: of the compiler: `num_warps`, `num_stages`.
    """
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    names = list(signature)
    sixteen = [name for name, kind in types.items() if kind.startswith("*") or name in aligned]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in sixteen}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=dict(constants), attrs=attributes)
    code = triton.compile(
        source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32), options={**LAUNCH, **options}
    )
    cubin.write_bytes(code.asm["cubin"])
    cuobjdump = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    usage = subprocess.run(
        [str(cuobjdump), "-res-usage", str(cubin)], capture_output=True, text=True, check=True
    ).stdout
    assembly, intermediate = code.asm["ptx"], code.asm["ttgir"]
    return Code(
        registers=_number(r"REG:(\d+)", usage),
        spilled=_number(r"LOCAL:(\d+)", usage),
        wgmma=assembly.count("wgmma.mma_async"),
        mma=assembly.count("mma.sync"),
        asynchronous=len(re.findall(r"cp\.async\.c[ag]", assembly)),
        vectors=len(re.findall(r"ld\.global\S*\.v4\.b32", assembly)),
        shuffles=sum(
            loop.count("ttg.convert_layout") for loop in re.findall(r"scf\.for.*?scf\.yield", intermediate, re.S)
        ),
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, f"no {pattern} in {text!r}"
    return int(found[1])
