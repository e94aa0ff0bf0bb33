"""Several searches side by side: what tells them apart, level by level."""

from __future__ import annotations

from collections.abc import Sequence

from lottery.results import Search
from lottery.statistics import interval
from pruning.errors import BadValue

# In this order they name a search best.
_TELLING = ("criterion", "trainer", "strategy", "std", "scope", "rewind", "optimizer", "sigma", "seed")


def labels(searches: Sequence[Search]) -> list[str]:
    """Return a name for each search: the settings in which they differ.

    Raises:
        BadValue: searches of different models, data or metrics, or that differ in nothing.
    """
    for key in ("model", "data"):
        found = sorted({str(search.config.get(key)) for search in searches})
        if len(found) > 1:
            raise BadValue(f"these runs cannot be compared: their {key} differs ({', '.join(found)})")
    if len({search.metric for search in searches}) > 1:
        raise BadValue(f"these runs cannot be compared: their metrics are {', '.join(s.metric for s in searches)}")
    keys = [key for key in _TELLING if len({str(search.config.get(key)) for search in searches}) > 1]
    rest = sorted(set().union(*(search.config for search in searches)) - set(_TELLING))
    for key in ["", *(key for key in rest if len({str(search.config.get(key)) for search in searches}) > 1)]:
        keys += [key] if key else []
        names = [", ".join(str(s.config[k]) for k in keys if s.config.get(k) is not None) for s in searches]
        if len(set(names)) == len(names):
            return names
    raise BadValue("some of these runs differ in no setting: there is nothing to compare")


def comparison_table(searches: Sequence[Search]) -> str:
    """Return the mean test metric and its 95 % interval for every level of every search."""
    names = labels(searches)
    width = max(24, *(len(name) + 2 for name in names))
    lines = [f"{'level':>5}  {'density':>8}  " + "".join(f"{name:>{width}}" for name in names)]
    for number in range(max(len(search.levels) for search in searches)):
        cells, density = [], ""
        for search in searches:
            level = search.levels[number] if number < len(search.levels) else None
            if level is None or not level.alive:
                cells.append("–")
                continue
            scale = 100 if search.is_fraction else 1
            value = level.test if level.test is not None else level.validation
            bounds = interval(level, search.is_fraction, search.test_examples)
            shown = f" [{bounds[0] * scale:.2f}, {bounds[1] * scale:.2f}]" if bounds else ""
            density = density or f"{100 * level.density:.2f}%"
            elsewhere = f"{100 * level.density:.2f}%"
            cells.append(f"{value * scale:.2f}{shown}" + (f" at {elsewhere}" if elsewhere != density else ""))
        lines.append(f"{number:>5}  {density:>8}  " + "".join(f"{cell:>{width}}" for cell in cells))
    counts = ", ".join(f"{len(s.levels[0].replicates)} ({name})" for s, name in zip(searches, names, strict=True))
    lines.append(f"Mean test {searches[0].metric} and 95 % interval; replicates: {counts}.")
    return "\n".join(lines)
