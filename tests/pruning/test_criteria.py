"""Criteria: every registered one scores every tensor, purely; a user's own is found by its path."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from pruning.criteria import CRITERIA, criterion, get_criterion
from pruning.errors import BadValue, UnknownName
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask

MASK = Mask({"a": np.ones((3, 4)), "b": np.ones(5)})


def trained_and_job(seed=0):
    rng = np.random.Generator(np.random.PCG64(7))
    params = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in MASK.shapes().items()}
    params["bias"] = np.zeros(2, np.float32)
    start = {name: value / 2 for name, value in params.items()}
    std = {name: np.full(shape, 0.5, np.float32) for name, shape in MASK.shapes().items()}
    needs = set().union(*(entry.value.needs for entry in CRITERIA))
    evidence = {
        need: {n: rng.standard_normal(shape).astype(np.float32) for n, shape in MASK.shapes().items()}
        for need in sorted(needs - {"std"})
    }
    return Trained(params, history=[], std=std, evidence=evidence), Job(start, MASK, seed, Budget(0, 1))


@pytest.mark.parametrize("entry", list(CRITERIA), ids=lambda entry: entry.name)
class TestEveryCriterion:
    def test_scores_every_tensor_of_the_mask_and_nothing_else(self, entry):
        trained, job = trained_and_job()
        scores = entry.value.score(trained, job)
        assert {name: s.shape for name, s in scores.items()} == MASK.shapes()
        assert all(np.isfinite(s).all() for s in scores.values())

    def test_is_pure(self, entry):
        trained, job = trained_and_job()
        before = {name: value.copy() for name, value in trained.params.items()}
        first, second = entry.value.score(trained, job), entry.value.score(trained, job)
        assert all(np.array_equal(first[name], second[name]) for name in first)
        assert all(np.array_equal(before[name], value) for name, value in trained.params.items())

    def test_says_what_it_is_and_where_it_comes_from(self, entry):
        assert entry.summary and entry.source


def test_magnitude_by_hand():
    mask = Mask({"w": np.ones(3)})
    trained = Trained({"w": np.array([-3.0, 1.0, -2.0])}, history=[])
    scores = get_criterion("magnitude").score(trained, Job(trained.params, mask, 0, Budget(0, 1)))
    assert scores["w"].tolist() == [3.0, 1.0, 2.0]


def test_random_follows_the_seed_and_the_name_alone():
    score = get_criterion("random").score
    one, other = score(*trained_and_job(1)), score(*trained_and_job(2))
    assert not np.array_equal(one["a"], other["a"])
    trained, job = trained_and_job(1)
    alone = score(trained, Job(job.params, Mask({"b": MASK["b"]}), 1, job.budget))
    assert np.array_equal(alone["b"], one["b"])


def test_an_unknown_criterion_gives_the_nearest_name():
    with pytest.raises(UnknownName, match="did you mean 'magnitude'"):
        get_criterion("magnitud")


def test_a_users_own_criterion_is_found_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "own_criteria.py").write_text(
        "from pruning.criteria import criterion\n"
        "def plain(trained, job):\n    return {n: trained.params[n] for n in job.mask}\n"
        "@criterion('mine-only', source='here', needs=['std'])\n"
        "def decorated(trained, job):\n    'Mine.'\n    return {}\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert get_criterion("own_criteria:plain").needs == frozenset()
    assert get_criterion("own_criteria:decorated").needs == {"std"}
    with pytest.raises(UnknownName, match="not a function"):
        get_criterion("own_criteria:number")
    with pytest.raises(UnknownName, match="did you mean own_criteria:plain"):
        get_criterion("own_criteria:plane")
    with pytest.raises(UnknownName, match="no module 'onw_criteria'"):
        get_criterion("onw_criteria:plain")
    CRITERIA._entries.pop("mine-only")
    sys.modules.pop("own_criteria")


def test_a_criterion_without_a_docstring_or_with_a_taken_name_is_an_error():
    with pytest.raises(BadValue, match="docstring"):
        criterion("undocumented", source="here")(lambda trained, job: {})

    def impostor(trained, job):
        """Pretend."""
        return {}

    with pytest.raises(BadValue, match="registered twice"):
        criterion("magnitude", source="here")(impostor)
