"""Another initialization under the same mask."""

from __future__ import annotations

from lottery.ablations import Control, Subject, ablation


@ablation("reinit", source="Frankle & Carbin 2019, section 2 (arXiv 1803.03635)")
def reinit(subject: Subject) -> Control:
    """The ticket's mask at weights drawn afresh: is it the initialization?"""
    return Control(subject.fresh(), subject.mask)
