"""Dotted parameter names: what wrappers add to them, and which tensor of a model a name means."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

from pruning.errors import MaskMismatch, UnknownName, nearest


def canonical(name: str) -> str:
    """Drop what `DataParallel` (`module.`) and `torch.compile` (`_orig_mod.`) add to a name.

    >>> canonical("module._orig_mod.fc1.weight"), canonical("block._orig_mod.conv.weight")
    ('fc1.weight', 'block.conv.weight')
    """
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def match_names(wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Map each wanted name to the known name that means the same tensor.

    An exact match wins; otherwise both sides are compared without wrapper prefixes.

    Raises:
        MaskMismatch: a name that means no known tensor (with the closest ones), or two that mean the same.

    >>> match_names(["module.fc1.weight"], ["fc1.weight", "fc1.bias"])
    {'module.fc1.weight': 'fc1.weight'}
    """
    wanted, known = list(wanted), list(known)
    by_canonical = {canonical(name): name for name in known}
    matched: dict[str, str] = {}
    for name in wanted:
        target = name if name in known else by_canonical.get(canonical(name))
        if target is None:
            close = nearest(canonical(name), by_canonical)
            hint = f"closest: {', '.join(close)}" if close else f"the model has: {', '.join(known[:8])}"
            raise MaskMismatch(f"the model has no tensor {name!r} ({hint})")
        if target in matched.values():
            raise MaskMismatch(f"two names mean the tensor {target!r}")
        matched[name] = target
    return matched


def match_patterns(patterns: Sequence[str], known: Iterable[str], what: str) -> list[str]:
    """Return the known names that any shell-style pattern matches, in the order of `known`.

    A pattern that is itself a known name means that name and no other, whatever brackets it holds.

    Raises:
        UnknownName: a pattern that matches nothing.

    >>> match_patterns(["fc*.weight"], ["conv.weight", "fc1.weight", "fc2.weight"], "skip")
    ['fc1.weight', 'fc2.weight']
    """
    known = list(known)

    def matches(name: str, pattern: str) -> bool:
        return name == pattern if pattern in known else fnmatch.fnmatchcase(name, pattern)

    for pattern in patterns:
        if not any(matches(name, pattern) for name in known):
            close = nearest(pattern, known) or known[:6]
            raise UnknownName(f"{what}: {pattern!r} matches no tensor (closest: {', '.join(close)})")
    return [name for name in known if any(matches(name, pattern) for pattern in patterns)]


def values_by_name(by_pattern: Mapping[str, float], names: Sequence[str], what: str) -> dict[str, float]:
    """Return the value of every tensor that is named; an exact name beats a pattern, a later pattern an earlier.

    Raises:
        UnknownName: a pattern that matches nothing.

    >>> values_by_name({"fc1.weight": 0.5, "fc*": 0.1}, ["fc1.weight", "fc2.weight", "norm"], "lr_factors")
    {'fc1.weight': 0.5, 'fc2.weight': 0.1}
    """
    found: dict[str, float] = {}
    for pattern in sorted(by_pattern, key=lambda pattern: pattern in names):
        found |= dict.fromkeys(match_patterns([pattern], names, what), by_pattern[pattern])
    return found
