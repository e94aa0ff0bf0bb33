"""`DataLoader`s as people have them: one alone, with generators of their own, with a length that is only a guess."""

import copy
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

from lottery.data import Data
from lottery.data.batches import sample, training_batches
from lottery.data.datasets import load_data
from lottery.data.parts import Loader, prepare
from lottery.data.reading import loaded
from lottery.state.generators import streams_of
from pruning.errors import DataError, RunError
from tests.lottery.helpers import blobs, search

# JAX, once it is imported, warns of every fork.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

INPUTS, LABELS = (torch.from_numpy(array) for array in blobs(60))
EXAMPLES = TensorDataset(INPUTS, LABELS)
AT_MODULE_LEVEL = np.random.default_rng(7)


def train_part(loader, validation=None) -> Loader:
    parts = prepare(Data(train=loader, validation=validation or (INPUTS, LABELS)), 0)
    assert isinstance(parts.train, Loader)
    return parts.train


def inputs_of(part, start, stop, seed=3):
    return [inputs for inputs, _ in training_batches(part, 10, seed, start, stop)]


class TestOneLoader:
    def both(self, loader) -> Any:
        return prepare(load_data(loader), seed=1)

    def test_a_validation_part_is_held_out_by_the_seed(self):
        splits: list[Any] = [prepare(load_data(DataLoader(EXAMPLES, 16)), seed) for seed in (1, 1, 2)]
        parts, again, other = splits
        rows = [torch.cat([x for x, _ in part.batches(0)]) for part in (parts.train, parts.validation)]
        assert len(rows[1]) == 6
        assert torch.equal(torch.cat(rows).sort(0).values, INPUTS.sort(0).values)
        held_out = [list(p.validation.loader.dataset.indices) for p in (parts, again, other)]
        assert held_out[0] == held_out[1] != held_out[2]

    def test_the_split_is_that_of_the_same_examples_as_arrays(self):
        by_arrays = self.both((INPUTS, LABELS))
        by_loader = self.both(DataLoader(EXAMPLES, 60))
        assert torch.equal(next(by_loader.validation.batches(0))[0], by_arrays.validation.inputs)

    def test_everything_else_is_kept(self):
        def collate(items):
            return default_collate(items)

        given = DataLoader(EXAMPLES, 16, shuffle=True, collate_fn=collate, drop_last=True, num_workers=1)
        parts = self.both(given)
        train, validation = parts.train.loader, parts.validation.loader
        assert (train.batch_size, train.collate_fn, train.drop_last, train.num_workers) == (16, collate, True, 1)
        assert type(train.sampler) is RandomSampler
        # Validation examples are looked at in order, and all of them.
        assert (validation.batch_size, validation.collate_fn, validation.drop_last) == (16, collate, False)
        assert given.dataset is EXAMPLES and len(given) == 3

    def test_of_whole_batches_whole_batches_are_held_out(self):
        batches: Any = [(INPUTS[i : i + 6], LABELS[i : i + 6]) for i in range(0, 60, 6)]
        parts = self.both(DataLoader(batches, batch_size=None))
        assert len(parts.train) == 9 and len(parts.validation) == 1

    @pytest.mark.parametrize(
        ("given", "reason"),
        [
            ({"sampler": WeightedRandomSampler([1.0] * 60, 60)}, "a sampler of its own"),
            ({"sampler": RandomSampler(EXAMPLES, replacement=True)}, "a sampler of its own"),
            ({"sampler": RandomSampler(EXAMPLES, num_samples=10)}, "a sampler of its own"),
            ({"batch_sampler": BatchSampler(RandomSampler(EXAMPLES), 10, False)}, "a batch_sampler of its own"),
        ],
    )
    def test_an_order_of_its_own_is_refused_with_what_to_give(self, given, reason):
        with pytest.raises(DataError, match=rf"{reason} cannot be split: give \(train, validation\)"):
            self.both(DataLoader(EXAMPLES, **given))

    def test_a_stream_is_refused(self):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter(EXAMPLES)

            def __len__(self):
                return 60

        with pytest.raises(DataError, match="stream"):
            self.both(DataLoader(Stream(), 10))

    @pytest.mark.parametrize("kind", [tuple, list])
    def test_several_loaders_are_the_parts_in_their_order(self, kind):
        loaders = [DataLoader(Subset(EXAMPLES, range(start, start + 20)), 20) for start in (0, 20, 40)]
        two, three = load_data(kind(loaders[:2])), load_data(kind(loaders))
        assert (two.train, two.validation, two.test) == (loaders[0], loaders[1], None)
        assert (three.train, three.validation, three.test) == tuple(loaders)
        assert load_data(kind([EXAMPLES, EXAMPLES])).validation is EXAMPLES

    def test_what_does_not_say_which_part_it_is_is_refused(self):
        with pytest.raises(DataError, match=r"\(train, validation, test\)"):
            load_data([DataLoader(EXAMPLES)] * 4)

    @pytest.mark.parametrize("trainer", [{}, {"trainer": "es"}])
    def test_a_search_takes_it(self, tmp_path, trainer):
        found = search(tmp_path, lambda seed: nn.Linear(6, 3), DataLoader(EXAMPLES, 16, shuffle=True), **trainer)
        assert len(found.levels) == 2


class Noisy(Dataset):
    """Adds noise from generators that it keeps in several places."""

    def __init__(self):
        self.rng = np.random.default_rng(1)
        self.inside = {"python": [random.Random(2)], "old": (np.random.RandomState(3),)}

    def __len__(self):
        return 60

    def __getitem__(self, index):
        noise = self.rng.random() + self.inside["python"][0].random() + self.inside["old"][0].rand()
        return INPUTS[index] + float(noise), LABELS[index]


class Collate:
    __slots__ = ("generator",)

    def __init__(self):
        self.generator = torch.Generator().manual_seed(4)

    def __call__(self, items):
        inputs, labels = default_collate(items)
        return inputs + torch.randn(inputs.shape, generator=self.generator), labels


def with_a_closure():
    generator = torch.Generator().manual_seed(5)

    def collate(items):
        inputs, labels = default_collate(items)
        return inputs + torch.rand((), generator=generator), labels

    return collate


def with_a_global(items):
    inputs, labels = default_collate(items)
    return inputs + float(AT_MODULE_LEVEL.random()), labels


RANDOM = {
    "sampler": lambda: DataLoader(EXAMPLES, 10, sampler=RandomSampler(EXAMPLES, generator=torch.Generator())),
    "batch sampler": lambda: DataLoader(
        EXAMPLES, batch_sampler=BatchSampler(RandomSampler(EXAMPLES, generator=torch.Generator()), 10, False)
    ),
    "data set": lambda: DataLoader(Noisy(), 10),
    "wrapped data set": lambda: DataLoader(ConcatDataset([Subset(Noisy(), range(30)), Noisy()]), 10, shuffle=True),
    "collation": lambda: DataLoader(EXAMPLES, 10, collate_fn=Collate()),
    "closure": lambda: DataLoader(EXAMPLES, 10, collate_fn=with_a_closure()),
    "global": lambda: DataLoader(EXAMPLES, 10, collate_fn=with_a_global),
    "workers that persist": lambda: DataLoader(Noisy(), 10, shuffle=True, num_workers=1, persistent_workers=True),
}


class TestGenerators:
    @pytest.mark.parametrize("kind", RANDOM)
    def test_the_order_follows_from_seed_and_step_alone(self, kind):
        part = train_part(RANDOM[kind]())
        whole = inputs_of(part, 0, 15)
        assert not torch.equal(whole[0], whole[6]) and not torch.equal(whole[0], inputs_of(part, 0, 1, seed=4)[0])
        later = inputs_of(part, 8, 15)
        assert all(torch.equal(a, b) for a, b in zip(whole[8:], later, strict=True))

    @pytest.mark.parametrize("kind", [kind for kind in RANDOM if "workers" not in kind])
    def test_the_callers_generators_stay_as_they_were(self, kind):
        loader = RANDOM[kind]()
        own = streams_of(loader)
        assert own.generators
        before = repr(own.state())
        batches: Any = training_batches(train_part(loader), 10, 0, 0, 15)
        next(batches)
        assert repr(own.state()) == before  # between two batches
        batches.close()
        assert repr(own.state()) == before  # abandoned midway
        inputs_of(train_part(loader), 0, 15)
        assert repr(own.state()) == before

    def test_what_the_training_draws_does_not_reach_the_loader_nor_the_other_way_round(self):
        part = train_part(DataLoader(Noisy(), 10, shuffle=True))
        alone = inputs_of(part, 0, 6)
        beside = []
        torch.manual_seed(9)
        drawn = []
        for inputs, _ in training_batches(part, 10, 3, 0, 6):
            beside.append(inputs)
            drawn.append(torch.rand(()))
        assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))
        torch.manual_seed(9)
        assert torch.equal(torch.stack(drawn), torch.stack([torch.rand(()) for _ in range(6)]))

    def test_a_sampler_that_is_told_of_epochs_is_told_of_them(self):
        sampler = DistributedSampler(EXAMPLES, num_replicas=2, rank=0, seed=5)
        got = inputs_of(train_part(DataLoader(EXAMPLES, 30, sampler=sampler)), 0, 3)
        for epoch, inputs in enumerate(got):
            own = copy.copy(sampler)
            own.set_epoch(epoch)
            assert torch.equal(inputs, INPUTS[list(own)])
        assert sampler.epoch == 0

    def test_a_search_gives_the_same_bits_twice(self, tmp_path):
        loader = RANDOM["data set"]()
        both = [search(tmp_path / str(i), lambda seed: nn.Linear(6, 3), (loader, loader)) for i in range(2)]
        metrics = [[r.validation for level in found.levels for r in level.replicates] for found in both]
        assert metrics[0] == metrics[1]


class Buckets(Sampler):
    """Says that it has ten batches, and yields as many as it likes."""

    def __init__(self, counts):
        super().__init__()
        self.counts, self.generator = counts, torch.Generator()

    def __len__(self):
        return 10

    def __iter__(self):
        order = torch.randperm(60, generator=self.generator)
        count = self.counts[int(order[0]) % len(self.counts)]
        return iter(order[: 4 * count].split(4) if count else ())


class TestLength:
    @pytest.mark.parametrize("counts", [[5], [15], [3, 7, 10]])
    def test_every_step_is_trained_and_has_its_batch(self, counts):
        part = train_part(DataLoader(EXAMPLES, batch_sampler=Buckets(counts)))
        whole = inputs_of(part, 0, 40)
        assert len(whole) == 40
        fresh = train_part(DataLoader(EXAMPLES, batch_sampler=Buckets(counts)))
        later = inputs_of(fresh, 23, 40)
        assert all(torch.equal(a, b) for a, b in zip(whole[23:], later, strict=True))

    def test_no_batch_at_all_is_one_error_and_no_endless_loop(self):
        part = train_part(DataLoader(EXAMPLES, batch_sampler=Buckets([0])))
        for start in (0, 5):
            with pytest.raises(RunError, match="the training DataLoader yields no batch"):
                inputs_of(part, start, 40)

    def test_a_loader_that_is_used_up_is_an_error(self):
        class Once(IterableDataset):
            def __init__(self):
                self.left = iter(EXAMPLES)

            def __iter__(self):
                return self.left

            def __len__(self):
                return 60

        part = Loader(DataLoader(Once(), 10), "the training DataLoader")
        with pytest.raises(RunError, match="used up"):
            inputs_of(part, 0, 40)

    def test_the_record_says_so(self, tmp_path):
        loader = DataLoader(EXAMPLES, batch_sampler=Buckets([3, 4]))
        found = search(tmp_path, lambda seed: nn.Linear(6, 3), (loader, loader), steps=25, levels=0)
        (replicate,) = found.levels[0].replicates
        assert replicate.steps == 25 and replicate.history[-1].step == 25


class TestErrors:
    class Broken(Dataset):
        def __len__(self):
            return 20

        def __getitem__(self, index):
            if index == 17:
                raise KeyError("label of 17")
            return INPUTS[index], LABELS[index]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_what_a_data_set_raises_is_one_line_with_its_place(self, workers):
        with pytest.raises(RunError) as caught:
            list(loaded(DataLoader(self.Broken(), 5, num_workers=workers), 0, "the training DataLoader"))
        assert re.fullmatch(
            rf"the training DataLoader fails: KeyError: .*label of 17.* \({re.escape(__file__)}, line \d+\)",
            str(caught.value),
        )

    def test_what_is_read_into_memory_says_so_too(self):
        with pytest.raises(DataError, match=rf"the training Dataset fails: KeyError.*{re.escape(__file__)}"):
            prepare(Data(train=self.Broken()), 0)


class TestSample:
    def test_batches_of_several_lengths_give_the_commonest(self):
        lengths = [3, 5, 5, 5, 3, 4]
        batches: Any = [(torch.full((4, length), float(length)), torch.zeros(4).long()) for length in lengths]
        part = Loader(DataLoader(batches, batch_size=None))
        inputs, labels = sample(part, 12, 0)
        assert inputs.shape == (12, 5) and len(labels) == 12

    def test_a_batch_that_cannot_be_cut_is_taken_whole(self):
        graph: Any = ((torch.zeros(7, 2), torch.zeros(2, 9).long()), torch.zeros(3))
        graphs: Any = [graph, graph]
        (nodes, edges), labels = sample(Loader(DataLoader(graphs, batch_size=None)), 2, 0)
        assert (nodes.shape, edges.shape, labels.shape) == ((7, 2), (2, 9), (3,))
