"""Names that clash: a file of the user's that Python finds where it should find one of our packages.

This file imports nothing of ours: what it looks for is that our packages may not be the ones that are found.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec

# One module of each package that no other package of that name is likely to have.
OURS = {"pruning": "mask_holder", "es": "program_cache"}


class ShadowedPackage(ImportError):
    """Another file has the name of one of our packages, and Python finds it first."""


def shadowed(beside: Sequence[str], needed: dict[str, str] = OURS) -> str | None:
    """Say in one line which file is found in the place of one of our packages; None where all are found.

    Nothing is imported: only the search path is looked at.

    Args:
        beside: the `__path__` of a package of ours; what lies beside it is ours.
        needed: the packages, each with a module by which it is known elsewhere.

    >>> import lottery
    >>> shadowed(lottery.__path__) is None
    True
    """
    folders = {os.path.dirname(place) for place in beside}
    for name, module in needed.items():
        spec, loaded = _found(name)
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        if any(os.path.dirname(place) in folders for place in places):
            continue
        if places and PathFinder.find_spec(f"{name}.{module}", places) is not None:
            continue  # ours, installed apart from the others
        file = loaded if spec is None else spec.origin
        if file is not None and os.path.isfile(file):
            return _clash(name, file)
        if spec is None or (places and file is None):
            return f"the package {name!r} is missing beside {_shown(beside[0])}: install lottery-tickets again"
        # An origin that is no file (frozen, in an archive) can only be taken as it is.
    return None


def refuse_shadows(beside: Sequence[str]) -> None:
    """Raise `ShadowedPackage` where one of our packages cannot be found; end the process where it is our command.

    Args:
        beside: the `__path__` of `lottery`.
    """
    message = shadowed(beside)
    if message is None:
        return
    if not is_our_command(sys.argv, sys.orig_argv):
        raise ShadowedPackage(message)
    # The command cannot say it: it stands on these packages too.
    if sys.stderr is not None:
        print(f"lottery: {message}", file=sys.stderr)
    raise SystemExit(2)


def is_our_command(words: Sequence[str], process: Sequence[str]) -> bool:
    """Say whether this process is the command `lottery`, or `python -m lottery` before it has begun.

    Args:
        words: `sys.argv`.
        process: `sys.orig_argv`.

    >>> is_our_command(["/usr/bin/lottery", "prune"], ["python", "/usr/bin/lottery", "prune"])
    True
    >>> is_our_command(["-m", "prune"], ["python", "-m", "lottery", "prune"])
    True
    >>> is_our_command(["-m", "lottery"], ["python", "-m", "mine", "lottery"])
    False
    """
    if not words:
        return False
    if words[0] == "-m":  # until Python has found the module that it is to run
        module = process[-len(words)].removeprefix("-m")
        return module.split(".")[0] == "lottery"
    return os.path.basename(words[0]).lower() in ("lottery", "lottery.exe")


def _found(name: str) -> tuple[ModuleSpec | None, str | None]:
    """Return where a top-level name is found, and the file of a loaded module that does not say it."""
    try:
        return find_spec(name), None
    except ValueError:  # loaded, by something that gave it no spec
        return None, getattr(sys.modules[name], "__file__", None)


def _clash(name: str, file: str) -> str:
    folder, last = os.path.split(file)
    what, thing = (folder, "folder") if last.startswith("__init__.") else (file, "file")
    # Beside a script it is found from wherever the script is run.
    beside_script = bool(sys.argv) and os.path.isfile(sys.argv[0]) and _folder(sys.argv[0]) == _folder(what)
    advice = f"rename that {thing}, or {'move your script to' if beside_script else 'run from'} another folder"
    if {"site-packages", "dist-packages"} & set(folder.split(os.sep)):
        advice = "uninstall what brought it, or use an environment of its own"
    return f"{_shown(what)} shadows the package {name!r} of lottery-tickets: {advice}"


def _folder(path: str) -> str:
    return os.path.dirname(os.path.realpath(path))


def _shown(path: str) -> str:
    return path if path.isprintable() else ascii(path)
