"""`lottery` with constants of its modules set to other sizes: `sized.py MODULE:NAME=VALUE … -- WORDS`."""

from __future__ import annotations

import ast
import importlib
import sys


def resize(text: str) -> None:
    """Set one constant, which must be there: `lottery.bench.es:BATCH=8`."""
    module_name, _, assignment = text.partition(":")
    name, _, value = assignment.partition("=")
    module = importlib.import_module(module_name)
    if not hasattr(module, name):
        raise SystemExit(f"{module_name} has no {name}")
    setattr(module, name, ast.literal_eval(value))


# A process that a benchmark spawns reads this file again, as `__mp_main__`, with the same arguments.
if __name__ in ("__main__", "__mp_main__"):
    for each in sys.argv[1 : sys.argv.index("--")]:
        resize(each)

if __name__ == "__main__":
    from lottery.cli.app import main

    main(sys.argv[sys.argv.index("--") + 1 :])
