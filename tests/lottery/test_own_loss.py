"""A model that computes its loss itself needs no other; the mean over a part is right where batches are unequal."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from lottery import find_ticket
from lottery.data.parts import Loader
from lottery.networks.evaluation import evaluate
from lottery.networks.objectives.objective import objective_for
from lottery.networks.objectives.own_loss import own_loss, own_weight
from lottery.studies.analyses import analyze
from pruning.errors import DataError, UnknownName, UsageError

TWO = torch.tensor(2.0)
Result = namedtuple("Result", "loss logits")
BOTH = pytest.mark.parametrize("how", [{"steps": 4}, {"trainer": "es", "generations": 3, "population": 6}])


@dataclass
class Output:
    loss: Any
    logits: Any = None


class Classifier(nn.Module):
    """Called as Hugging Face's models are: a batch by keywords, and a loss where there are labels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.first, self.last = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask=None, labels=None):
        hidden = torch.relu(self.first(self.embed(input_ids))).mean(1)
        logits = self.last(hidden)
        return {"loss": None if labels is None else F.cross_entropy(logits, labels), "logits": logits}


def loader(items: Any, batch_size: int | None) -> DataLoader:
    return DataLoader(items, batch_size=batch_size)


def texts(count: int = 32, **more: Any) -> DataLoader:
    ids = torch.randint(0, 20, (count, 5), generator=torch.Generator().manual_seed(0))
    return loader([{"input_ids": i, "labels": i[0] % 3, **more} for i in ids], 8)


@pytest.mark.parametrize(
    "outputs",
    [TWO, Output(TWO), {"loss": TWO, "logits": torch.ones(3)}, Result(TWO, torch.ones(3)), (torch.ones(3), TWO)],
    ids=["number", "dataclass", "dictionary", "named tuple", "tuple"],
)
def test_the_loss_is_found_in_outputs_of_any_class(outputs):
    assert own_loss(outputs, None).item() == 2


def test_a_dictionary_of_nothing_but_losses_is_their_sum():
    assert own_loss({"loss_classifier": TWO, "loss_box_reg": TWO}, None).item() == 4


@pytest.mark.parametrize("outputs", [torch.ones(3), Output(None), {"logits": TWO.expand(3)}, (TWO, TWO), None])
def test_outputs_without_a_loss_say_what_to_give(outputs):
    with pytest.raises(DataError, match="hold no loss .*: give a `loss`"):
        own_loss(outputs, None)


@BOTH
def test_a_model_with_its_own_loss_needs_neither_loss_nor_metric(how, tmp_path):
    ticket = find_ticket(Classifier(), texts(), levels=1, tolerance=5.0, quiet=True, out=tmp_path, **how)
    assert ticket.info["metric"]["name"] == "loss" and not ticket.info["metric"]["higher_is_better"]
    assert ticket.info["validation"] > 0


def test_a_batch_without_labels_is_refused_before_anything_trains(tmp_path):
    data = loader([{"input_ids": torch.zeros(5, dtype=torch.long)}] * 9, 3)
    with pytest.raises(UsageError, match=r"hold no loss \(dict with loss, logits\): .*`labels`"):
        find_ticket(Classifier(), data, levels=1, steps=2, quiet=True, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_own_is_the_only_name_of_a_loss():
    assert objective_for(torch.tensor([1]), "own").loss is own_loss
    with pytest.raises(UnknownName, match="unknown loss 'owl': did you mean 'own'"):
        objective_for(torch.tensor([1]), "owl")


class Words(nn.Module):
    """A language model of words given the one before (`shifted`), or of the word itself."""

    def __init__(self, shifted: bool):
        super().__init__()
        torch.manual_seed(1)
        self.shifted, self.table = shifted, nn.Embedding(7, 7)

    def forward(self, input_ids, labels):
        logits = self.table(input_ids)
        ends = (logits[:, :-1], labels[:, 1:]) if self.shifted else (logits, labels)
        return Output(F.cross_entropy(ends[0].flatten(0, 1), ends[1].flatten()), logits)


@pytest.mark.parametrize("shifted", [True, False])
def test_the_mean_over_batches_of_unequal_size_is_the_mean_over_all_labels(shifted):
    """Padded texts: labels of −100 do not count, nor does the first one where each word is predicted."""
    model, random = Words(shifted), torch.Generator().manual_seed(2)
    batches, values = [], []
    for length in (3, 9, 2):
        ids = torch.randint(0, 7, (4, length), generator=random)
        labels = ids.clone()
        labels[:2, length // 2 :] = -100
        batches.append({"input_ids": ids, "labels": labels})
        logits = model.table(ids)
        ends = (logits[:, :-1], labels[:, 1:]) if shifted else (logits, labels)
        values.append(
            F.cross_entropy(ends[0].flatten(0, 1), ends[1].flatten(), reduction="none")[ends[1].flatten() >= 0]
        )
    part = Loader(loader(batches, None))
    loss, metric = evaluate(model, part, objective_for(batches[0]), torch.device("cpu"), 8)
    assert loss == metric == pytest.approx(torch.cat(values).mean().item(), rel=1e-6)


def test_without_integer_labels_a_loss_is_a_mean_over_examples():
    assert own_weight(TWO, {"input_ids": torch.zeros(3, 4), "labels": torch.zeros(3, 2)}) == 3


def test_an_analysis_of_a_chain_of_layers_says_what_it_needs_of_batches_by_name(tmp_path):
    ticket = find_ticket(Classifier(), texts(), levels=1, steps=2, tolerance=9.0, quiet=True, out=tmp_path)
    assert ticket.path is not None
    with pytest.raises(UsageError, match="from a floating-point input only"):
        analyze(ticket.path.parent.parent, "effective-sparsity", Classifier(), texts())
