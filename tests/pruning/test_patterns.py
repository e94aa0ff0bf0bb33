"""Patterns: tiles stay whole or hold so many, in order of score, within the target, nested, guarded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.errors import BadValue, UnknownName
from pruning.mask import Mask
from pruning.patterns import PATTERNS, Tile, check_pattern, get_pattern, pattern
from pruning.selection import check_targets, select

TWO_OF_FOUR = get_pattern("n-m", {"n": 2, "m": 4})
ROWS = get_pattern("rows")


def tiles(array, tile):
    """A list of the tiles of an array, each flat: slowly, by slicing."""
    flat = np.asarray(array).reshape(len(array), -1)
    return [
        flat[row : row + tile.height, column : column + tile.width].ravel()
        for row in range(0, flat.shape[0], tile.height)
        for column in range(0, flat.shape[1], tile.width)
    ]


@st.composite
def problems(draw):
    """Tensors that divide into tiles of 2 × 4, scores with many ties, and a mask with survivors everywhere."""
    rng = np.random.Generator(np.random.PCG64(draw(st.integers(0, 2**32 - 1))))
    shapes = draw(st.lists(st.sampled_from([(2, 4), (4, 8), (6, 4), (2, 2, 2), (4, 3, 4, 1)]), min_size=1, max_size=3))
    distinct = draw(st.sampled_from([1, 2, 5, 1000]))
    scores = {f"t{i}": rng.integers(0, distinct, shape).astype(np.float32) for i, shape in enumerate(shapes)}
    density = draw(st.sampled_from([0.3, 0.8, 1.1]))
    mask = {name: rng.random(values.shape) < density for name, values in scores.items()}
    for keep in mask.values():
        keep.flat[0] = True
    return scores, Mask(mask)


def targets(data, mask):
    """A total, or a count for each tensor."""
    fractions = st.floats(0.0, 1.0)
    if data.draw(st.booleans()):
        return round(data.draw(fractions) * mask.kept)
    return {name: round(data.draw(fractions) * count) for name, count in mask.counts().items()}


class TestAtMostNOfM:
    @given(problems(), st.data(), st.integers(1, 4), st.sampled_from([0, 1, 3]))
    def test_the_best_of_every_group_as_many_as_target_and_pattern_allow(self, problem, data, n, guard):
        scores, mask = problem
        chosen, tile = get_pattern("n-m", {"n": n, "m": 4}), Tile(1, 4)
        allowed = {name: sum(min(n, int(held.sum())) for held in tiles(keep, tile)) for name, keep in mask.items()}
        least = {name: min(guard, count) for name, count in allowed.items()}
        target = targets(data, mask)
        if isinstance(target, int):
            target = max(target, sum(least.values()))
        else:
            target = {name: max(count, least[name]) for name, count in target.items()}
        after = select(scores, mask, target, guard, chosen)
        assert after.issubset(mask)
        if isinstance(target, int):
            assert after.kept == min(target, sum(allowed.values()))
        else:
            assert after.counts() == {name: min(target[name], allowed[name]) for name in mask}
        for name, keep in after.items():
            assert keep.sum() >= least[name]
            parts = zip(tiles(keep, tile), tiles(mask[name], tile), tiles(scores[name], tile), strict=True)
            for stays, was, score in parts:
                ranked = sorted(np.flatnonzero(was), key=lambda i, score=score: (-score[i], i))
                assert stays.sum() <= n
                assert set(np.flatnonzero(stays)) == set(ranked[: int(stays.sum())])

    def test_half_of_the_weights_is_exactly_two_of_every_four(self):
        scores = {"a": np.arange(32.0).reshape(4, 8) % 5, "b": np.arange(24.0).reshape(2, 3, 4)}
        after = select(scores, Mask.dense({"a": (4, 8), "b": (2, 3, 4)}), 28, 1, TWO_OF_FOUR)
        assert {int(part.sum()) for keep in after.values() for part in tiles(keep, Tile(1, 4))} == {2}

    def test_by_hand(self):
        scores = {"w": np.array([[4.0, 1, 3, 3, 0, 0, 0, 9]])}
        dense = Mask.dense({"w": (1, 8)})
        assert np.flatnonzero(select(scores, dense, 8, 1, TWO_OF_FOUR)["w"]).tolist() == [0, 2, 4, 7]
        assert np.flatnonzero(select(scores, dense, 2, 1, TWO_OF_FOUR)["w"]).tolist() == [0, 7]

    def test_what_was_removed_does_not_come_back_for_its_score(self):
        mask = Mask({"w": [[0, 1, 1, 1]]})
        poisoned = {"w": np.array([[np.nan, 1.0, -np.inf, -np.inf]])}
        assert select(poisoned, mask, 3, 1, TWO_OF_FOUR)["w"].tolist() == [[False, True, True, False]]

    def test_a_nan_among_the_survivors_is_an_error(self):
        with pytest.raises(BadValue, match="'w' contain NaN"):
            select({"w": np.array([[np.nan, 1.0, 2.0, 3.0]])}, Mask.dense({"w": (1, 4)}), 2, 1, TWO_OF_FOUR)


class TestWholeTiles:
    @given(problems(), st.data(), st.sampled_from([0, 1, 3]), st.sampled_from(["rows", "blocks", "columns of two"]))
    def test_tiles_stay_whole_and_the_best_of_them_stay(self, problem, data, guard, kind):
        scores, mask = problem
        sizes = {"rows": {}, "blocks": {"height": 2, "width": 4}, "columns of two": {"height": 2, "width": 1}}[kind]
        chosen = get_pattern("rows" if kind == "rows" else "blocks", sizes)
        if kind == "blocks" and any(keep.reshape(len(keep), -1).shape[1] % 4 for keep in mask.values()):
            return
        target = targets(data, mask)
        room = {name: min(guard * 17, count) for name, count in mask.counts().items()}  # more than guard - 1 and a row
        if isinstance(target, int):
            target = max(target, sum(room.values()))
        else:
            target = {name: max(count, room[name]) for name, count in target.items()}
        after = select(scores, mask, target, guard, chosen)
        assert after.issubset(mask)
        pools = [list(mask)] if isinstance(target, int) else [[name] for name in mask]
        for names in pools:
            units = []
            for name in names:
                tile = chosen.tile(name, mask[name].shape)
                parts = zip(*(tiles(array[name], tile) for array in (mask, scores, after)), strict=True)
                seen = [(int(was.sum()), score[was].mean() if was.any() else 0.0, stays) for was, score, stays in parts]
                found = [(size, float(score), stays) for size, score, stays in seen if size]
                assert all(int(stays.sum()) in (0, size) for size, _, stays in found)
                kept = [score for _, score, stays in found if stays.any()]
                assert not guard or kept
                ranked = sorted(range(len(found)), key=lambda i, found=found: -found[i][1])
                assert [i for i in ranked if found[i][2].any()] == ranked[: len(kept)]  # of equal ones the earlier
                units += found
            total = sum(size for size, _, _ in units)
            goal = min(total, target if isinstance(target, int) else target[names[0]])
            kept = sum(size for size, _, stays in units if stays.any())
            left = [size for size, _, stays in units if not stays.any()]
            assert kept <= goal
            assert not left or goal - kept < max(left)

    def test_rows_by_hand(self):
        scores = {"a": np.array([[1.0, 3], [2, 2], [9, 9]]), "b": np.array([[0.0, 0], [5, 0]])}
        dense = Mask.dense({"a": (3, 2), "b": (2, 2)})
        assert select(scores, dense, 6, 1, ROWS).counts() == {"a": 4, "b": 2}
        assert select(scores, dense, 6, 1, ROWS)["a"][:, 0].tolist() == [
            True,
            False,
            True,
        ]  # of equal means the earlier
        assert select(scores, dense, 5, 1, ROWS).counts() == {"a": 2, "b": 2}
        assert select(scores, dense, 2, 0, ROWS).counts() == {"a": 2, "b": 0}
        assert select(scores, dense, {"a": 3, "b": 2}, 1, ROWS).counts() == {"a": 2, "b": 2}

    def test_blocks_by_hand(self):
        scores = {"w": np.array([[1.0, 1, 8, 0], [1, 1, 0, 0]])}
        square = get_pattern("blocks", {"height": 2, "width": 2})
        assert select(scores, Mask.dense({"w": (2, 4)}), 7, 1, square)["w"].tolist() == [[False, False, True, True]] * 2

    def test_a_unit_scores_by_the_mean_of_its_survivors(self):
        mask = Mask({"w": [[1, 0], [1, 1]]})
        scores = {"w": np.array([[3.0, 100.0], [3.0, 2.0]])}
        assert select(scores, mask, 2, 1, ROWS)["w"].tolist() == [[True, False], [False, False]]
        scores = {"w": np.array([[2.0, 100.0], [3.0, 2.0]])}
        assert select(scores, mask, 2, 1, ROWS)["w"].tolist() == [[False, False], [True, True]]

    def test_an_order_of_scores_and_not_of_sizes(self):
        """A unit that does not fit ends the level: no worse one is taken in its place."""
        scores = {"wide": np.array([[9.0] * 4, [5.0] * 4]), "narrow": np.array([[1.0], [0.5]])}
        assert select(scores, Mask.dense({"wide": (2, 4), "narrow": (2, 1)}), 7, 0, ROWS).counts() == {
            "wide": 4,
            "narrow": 0,
        }

    def test_the_guard_may_need_several_units(self):
        scores = {"a": np.arange(8.0).reshape(4, 2), "b": np.arange(8.0).reshape(4, 2) + 100}
        dense = Mask.dense({"a": (4, 2), "b": (4, 2)})
        assert select(scores, dense, 8, 3, ROWS).counts() == {"a": 4, "b": 4}
        with pytest.raises(BadValue, match="7 weights cannot leave the best unit in each of a, b, which hold 8"):
            select(scores, dense, 7, 3, ROWS)
        with pytest.raises(BadValue, match="1 weights cannot leave the best unit in each of b, which hold 2"):
            select(scores, dense, {"a": 8, "b": 1}, 1, ROWS)

    def test_infinite_scores_have_an_order_but_both_infinities_no_mean(self):
        dense = Mask.dense({"w": (2, 2)})
        assert select({"w": np.array([[0.0, -np.inf], [1, 1]])}, dense, 2, 1, ROWS)["w"].tolist() == [
            [False] * 2,
            [True] * 2,
        ]
        with pytest.raises(BadValue, match="'w' hold both infinities"):
            select({"w": np.array([[np.inf, -np.inf], [1, 1]])}, dense, 2, 1, ROWS)

    def test_a_tensor_wider_than_a_band_is_worked_through_whole(self):
        rng = np.random.Generator(np.random.PCG64(0))
        scores = {"w": rng.random((6, 400_000), np.float32)}
        dense = Mask.dense({"w": (6, 400_000)})
        after = select(scores, dense, 1_200_000, 1, ROWS)
        assert set(np.flatnonzero(after["w"].all(1))) == set(np.argsort(-scores["w"].mean(1, np.float64))[:3])
        halved = select(scores, dense, 1_200_000, 1, TWO_OF_FOUR)["w"]
        assert (halved.reshape(-1, 4).sum(1) == 2).all()


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        ("row", {}, UnknownName, "unknown pattern 'row': did you mean 'rows'"),
        ("n-m", {}, BadValue, "takes n and m in pattern_params; n and m missing"),
        ("n-m", {"n": 2}, BadValue, "takes n and m in pattern_params; m missing"),
        ("n-m", {"n": 5, "m": 4}, BadValue, "n must be at most m, not 5 of 4"),
        ("n-m", {"n": 0, "m": 4}, BadValue, "whole numbers of 1 or more; n is 0"),
        ("n-m", {"n": 1.5, "m": 4}, BadValue, "n is 1.5"),
        ("n-m", {"n": 2, "m": float("inf")}, BadValue, "m is inf"),
        (
            "blocks",
            {"height": 2, "widht": 2},
            UnknownName,
            "size of pattern 'blocks' 'widht': did you mean 'width'",
        ),
        ("unstructured", {"n": 2}, BadValue, "pattern 'unstructured' takes no sizes, not 'n'"),
        ("rows", {"height": 2}, BadValue, "pattern 'rows' takes no sizes, not 'height'"),
    ],
)
def test_odd_sizes_are_one_clear_line(name, params, error, message):
    with pytest.raises(error, match=message) as caught:
        get_pattern(name, params)
    assert "\n" not in str(caught.value)


def test_a_tensor_that_does_not_divide_is_named():
    with pytest.raises(BadValue, match=r"'conv' has a width of 27 .*does not divide by 4; name it in `skip`"):
        check_pattern(TWO_OF_FOUR, {"fc": (10, 8), "conv": (16, 3, 3, 3)})
    blocks = get_pattern("blocks", {"height": 4, "width": 1})
    with pytest.raises(BadValue, match=r"'fc' has a height of 10 .*does not divide by 4; name it in `skip`"):
        check_pattern(blocks, {"fc": (10, 8)})
    with pytest.raises(BadValue, match="'fc' has a height of 10"):
        select({"fc": np.ones((10, 8))}, Mask.dense({"fc": (10, 8)}), 40, 1, blocks)
    check_pattern(ROWS, {"fc": (10, 8), "vector": (7,), "scalar": ()})


def test_levels_that_leave_no_room_for_a_unit_are_an_error_before_training():
    dense = Mask.dense({"a": (4, 100), "b": (5, 10)})
    check_targets([450, 110], dense, 1, ROWS)
    check_targets([450, 10], dense, 0, ROWS)
    check_targets([450, 10], dense, 1, get_pattern("unstructured"))
    with pytest.raises(BadValue, match="level 2 would keep 109 weights of the network, less than the 110"):
        check_targets([450, 300, 109], dense, 1, ROWS)
    with pytest.raises(BadValue, match="level 1 would keep 99 weights of 'a', less than the 100"):
        check_targets([450, {"a": 99, "b": 10}], dense, 1, ROWS)
    with pytest.raises(BadValue, match="less than the 120"):
        check_targets([450, 119], dense, 11, ROWS)


@given(problems(), st.integers(1, 9), st.integers(0, 60))
def test_what_the_check_lets_through_can_be_selected(problem, guard, target):
    scores, mask = problem
    try:
        check_targets([mask.kept, target], mask, guard, ROWS)
    except BadValue:
        return
    assert select(scores, mask, target, guard, ROWS).kept <= target


@pytest.mark.parametrize("entry", list(PATTERNS), ids=lambda entry: entry.name)
def test_every_pattern_says_what_it_is_and_where_it_comes_from(entry):
    assert entry.summary and entry.source


def test_a_new_pattern_is_one_function():
    @pattern("columns", source="here")
    def columns(out, rest):
        """Input neurons stay or go whole."""
        return Tile(out, 1)

    try:
        scores = {"w": np.array([[1.0, 5.0, 2.0], [1.0, 0.0, 2.0]])}
        after = select(scores, Mask.dense({"w": (2, 3)}), 4, 1, get_pattern("columns"))
        assert after["w"].tolist() == [[False, True, True]] * 2
    finally:
        PATTERNS._entries.pop("columns")
