"""Exact compaction of a masked network for inference.

    copy ─▶ trace ─▶ observe one example ─▶ follow channels forward ─▶ what matters, backward ─▶ rewrite ─▶ fold norms

What an operation does with channels is a rule in `rules/`; an operation without a rule is dense.
"""

from pruning.compaction.compacting import compact
from pruning.compaction.result import Compacted, LayerWidths

__all__ = ["Compacted", "LayerWidths", "compact"]
