"""A search as JSON: what `--json` prints and `summary.json` holds."""

from __future__ import annotations

from typing import Any

from lottery.results.levels import Level, Search
from lottery.results.statistics import against_dense, interval


def as_json(search: Search) -> dict[str, Any]:
    """Return what `--json` prints and `summary.json` holds."""
    winner = search.winning_replicate
    dense = search.levels[0]
    winning: dict[str, Any] | None = None
    if winner is not None:
        level = next(level for level in search.levels if level.level == winner.level)
        winning = {
            "level": level.level,
            "density": level.density,
            "validation": level.validation,
            "dense_validation": dense.validation,
            "test": level.test,
            "dense_test": dense.test,
            "seed": winner.seed,
            "ticket": str(winner.path),
            "ticket_density": winner.density,
        }
    return {
        "run": str(search.run),
        "seconds": search.seconds,
        "device": search.device,
        "metric": search.metric,
        "higher_is_better": search.higher_is_better,
        "measured_at": search.config.get("measure_at"),
        "tolerance": {"value": search.tolerance.value, "rule": search.tolerance.rule},
        "coverage": search.coverage,
        "levels": [level_json(level, search) for level in search.levels],
        "winning": winning,
        "reason": search.reason,
        "stopped": search.stopped,
    }


def level_json(level: Level, search: Search) -> dict[str, Any]:
    """Return one entry of `levels`."""
    bounds = interval(level, search.is_fraction, search.test_examples)
    return {
        "level": level.level,
        "density": level.density,
        "sparsity": 1 - level.density,
        "kept": level.kept,
        "kept_range": list(level.kept_range),
        "prunable": level.prunable,
        "layers": level.layers,
        "validation": level.validation,
        "test": level.test,
        "test_interval": list(bounds) if bounds else None,
        "test_against_dense": against_dense(level, search.levels[0]),
        "replicates": [
            {
                "seed": r.seed,
                "kept": r.kept,
                "validation": r.validation,
                "test": r.test,
                "steps": r.steps,
                "final": {"validation": r.final_validation, "test": r.final_test},
                "early_stop": vars(r.early_stop) if r.early_stop else None,
                "diverged": r.diverged,
                "ticket": str(r.path),
            }
            for r in level.replicates
        ],
    }
