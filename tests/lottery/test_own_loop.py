"""Somebody else's training loop: levels, rewinding, replicates and files are ours, the training is the caller's."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lottery import ablate, find_ticket
from lottery.data import Data
from lottery.data.parts import Parts, Tensors
from lottery.networks.objectives.objective import objective_for
from lottery.results.levels import Search
from lottery.trainers.function.trainer import TrainingBudget, measured_on
from pruning.disk.files import read_tensors
from pruning.errors import BadValue, DataError, Diverged, LotteryError, NoWinningTicket
from tests.lottery.helpers import assert_same_arrays, blobs, removed, shown, tiny_model

DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
INPUTS, LABELS = (torch.as_tensor(array) for array in blobs(96))


def plain(model: nn.Module, mask: Any, budget: TrainingBudget) -> None:
    """The loop of a script, in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(budget.start, budget.stop):
        chosen = torch.randint(0, len(LABELS), (16,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(INPUTS[chosen]), LABELS[chosen]).backward()
        optimizer.step()


def returning_a_module(model: nn.Module, mask: Any, budget: TrainingBudget) -> nn.Module:
    plain(model, mask, budget)
    return model


def returning_a_wrapper(model: nn.Module, mask: Any, budget: TrainingBudget) -> nn.Module:
    plain(model, mask, budget)
    return nn.DataParallel(model)


def returning_a_state(model: nn.Module, mask: Any, budget: TrainingBudget) -> Any:
    plain(model, mask, budget)
    return model.state_dict()


def score(model: nn.Module) -> torch.Tensor:
    return (model(INPUTS).argmax(1) == LABELS).float().mean()


def found(out: Any, train: Any, model: Any = tiny_model, data: Any = DATA, **settings: Any) -> Search:
    settings = {"levels": 1, "steps": 20, "tolerance": 1.0, **settings}
    search = find_ticket(model, data, train=train, out=out, quiet=True, **settings).search
    assert search is not None
    return search


def trained_of(search: Search, level: int = -1) -> Any:
    return read_tensors(search.levels[level].replicates[0].path / "trained.safetensors")[0]


@pytest.mark.parametrize("train", [plain, returning_a_module, returning_a_wrapper, returning_a_state])
def test_a_network_may_be_trained_in_place_or_returned_and_removed_weights_stay_0(train, tmp_path):
    search = found(tmp_path, train)
    from lottery import Ticket

    ticket = Ticket.load(search.levels[1].replicates[0].path)
    assert ticket.mask.kept < ticket.mask.total
    assert (removed(ticket.mask, trained_of(search)) == 0).all()
    assert search.levels[1].replicates[0].validation > 0.8
    assert_same_arrays(trained_of(search), trained_of(found(tmp_path / "plain", plain)))


def test_the_budget_says_from_where_to_where_and_every_level_gets_the_rewind_point(tmp_path):
    seen: list[tuple[TrainingBudget, np.ndarray[Any, Any], float]] = []

    def train(model: nn.Module, mask: Any, budget: TrainingBudget) -> None:
        seen.append((budget, model.state_dict()["4.weight"].numpy().copy(), random.random()))
        plain(model, mask, budget)

    search = found(tmp_path, train, rewind="8", levels=2, epochs=3, steps=None, batch_size=16)
    spans = [(budget.start, budget.stop, budget.total, budget.epochs) for budget, *_ in seen]
    assert spans == [(0, 8, 18, 8 / 6), (8, 18, 18, 10 / 6)] + [(8, 18, 18, 10 / 6)] * 2
    kept = read_tensors(search.levels[2].replicates[0].path / "mask.safetensors")[0]["4.weight"]
    assert (seen[3][1] == np.where(kept, seen[1][1], 0)).all()
    assert len({budget.seed for budget, *_ in seen}) == 3 and len({draw for *_, draw in seen}) == 4
    assert search.levels[1].replicates[0].steps == 10


def test_a_function_without_a_budget_trains_as_it_likes_and_cannot_be_rewound_to_a_later_step(tmp_path):
    def own_length(model: nn.Module, mask: Any) -> None:
        plain(model, mask, TrainingBudget(0, 5, 5, 1.0, 0, torch.device("cpu")))

    found(tmp_path, own_length)
    for rewind in ("5", "none"):
        with pytest.raises(BadValue, match="no budget"):
            found(tmp_path, own_length, rewind=rewind)


def test_without_data_the_callers_evaluate_measures(tmp_path):
    search = found(tmp_path, plain, data=None, evaluate=score)
    assert search.metric == "score"
    assert search.levels[0].replicates[0].validation > 0.8
    assert search.levels[0].replicates[0].test is None


def test_a_lower_number_may_be_the_better_one(tmp_path):
    def error(model: nn.Module) -> float:
        return 1 - float(score(model))

    search = found(tmp_path, plain, data=None, evaluate=error, higher_is_better=False)
    assert not search.higher_is_better


def revives(model, mask, budget):
    for parameter in model.parameters():
        parameter.data += 1.0


def raises(model, mask, budget):
    raise ZeroDivisionError("no step")


def leaves(model, mask, budget):
    raise SystemExit(0)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (revives, "removed weights of '0.weight' that are not 0: train the model that it is given"),
        (raises, r"steps 0 to 20\) fails: ZeroDivisionError: no step \(.*test_own_loop.py, line \d+\)"),
        (leaves, "fails: SystemExit"),
        (lambda model, mask, budget: "done", "returned a str"),
        (lambda model, mask, budget: nn.Linear(6, 3), "another network than it was given.*in place"),
        (lambda model, mask, budget: {"0.weight": torch.zeros(8, 6)}, "without '0.bias'"),
        (lambda model, mask, budget: {**model.state_dict(), "4.weight": torch.zeros(3, 9)}, r"shape \(3, 9\)"),
        (lambda model: None, r"must be a function of \(model, mask, budget\)"),
        ("no_such_module_here:train", "there is no module"),
        (0.5, "train must be a name or a function"),
    ],
    ids=lambda value: "" if isinstance(value, str) else getattr(value, "__name__", "number"),
)
def test_what_a_function_does_wrong_is_one_line(train, message, tmp_path):
    with pytest.raises(LotteryError, match=message) as caught:
        found(tmp_path, train)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": None}, "give data to measure on, or evaluate"),
        ({"data": None, "evaluate": lambda model: "good"}, "evaluate must return one number"),
        ({"data": None, "evaluate": lambda model: 1 / 0}, "evaluate fails: ZeroDivisionError"),
        ({"data": None, "evaluate": score, "model": None}, "say which"),
        ({"data": None, "evaluate": score, "model": "mlp"}, "give the model itself"),
        ({"data": None, "evaluate": score, "criterion": "snip"}, "no data was given"),
        ({"evaluate": score, "metric": score}, "leave loss and metric out"),
        ({"criterion": "snr"}, "nothing of standard deviations"),
        ({"measure_at": "early-stop"}, "early-stop"),
        ({"early_bird": 0.1}, "trainer 'gd'"),
        ({"data_diet": 0.5}, "leave data_diet out"),
        ({"data": blobs(60, features=9)}, "shapes cannot be multiplied"),
        ({"lr": 0.1}, "unknown setting 'lr'"),
    ],
    ids=shown,
)
def test_what_cannot_be_done_is_said_before_anything_is_trained(settings, message, tmp_path):
    def untouched(model: nn.Module, mask: Any, budget: TrainingBudget) -> None:
        raise AssertionError("it was trained")

    with pytest.raises((BadValue, DataError, LotteryError), match=message):
        found(tmp_path, untouched, **settings)


def test_a_training_that_ends_in_nan_is_diverged_and_never_pruned(tmp_path):
    def explodes(model: nn.Module, mask: Any, budget: TrainingBudget) -> None:
        for parameter in model.parameters():
            parameter.data *= float("nan")

    with pytest.raises(Diverged, match="not finite at step 20"):
        found(tmp_path, explodes)


def test_the_functions_code_tells_runs_apart_and_the_same_one_is_found_again(tmp_path):
    def made(lr: float) -> Any:
        def train(model: nn.Module, mask: Any, budget: TrainingBudget) -> None:
            optimizer = torch.optim.SGD(model.parameters(), lr=lr)
            nn.functional.cross_entropy(model(INPUTS), LABELS).backward()
            optimizer.step()

        return train

    first, same, other = (found(tmp_path, made(lr)).run for lr in (0.1, 0.1, 0.2))
    assert first == same != other


def test_replicates_add_to_a_run_and_controls_are_trained_by_the_same_function(tmp_path):
    run = found(tmp_path, plain).run
    assert found(tmp_path, plain, replicates=2).run == run
    with pytest.raises(BadValue, match="train was a function of the caller's own"):
        ablate(run, "reinit", model=tiny_model, data=DATA)
    assert ablate(run, "reinit", model=tiny_model, data=DATA, functions={"train": plain})


def test_a_name_suffices_in_a_file(tmp_path):
    settings = tmp_path / "loop.toml"
    here = "tests.lottery.test_own_loop"
    settings.write_text(f'train = "{here}:plain"\nevaluate = "{here}:score"\nsteps = 10\nlevels = 1\ntolerance = 1.0\n')
    assert find_ticket(tiny_model, config=settings, out=tmp_path, quiet=True).density < 1


def test_a_trainer_of_hugging_face_trains_the_levels(tmp_path):
    pytest.importorskip("accelerate")
    transformers = pytest.importorskip("transformers")
    config = transformers.DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=16, num_labels=2)
    words = torch.randint(0, 20, (32, 6), generator=torch.Generator().manual_seed(0))
    examples = [{"input_ids": row, "labels": row[0] % 2} for row in words]

    def train(model: nn.Module, mask: Any, budget: TrainingBudget) -> None:
        arguments = transformers.TrainingArguments(
            str(tmp_path / "hf"), max_steps=budget.steps, seed=budget.seed % 2**31, report_to=[], use_cpu=True
        )
        transformers.Trainer(model, arguments, train_dataset=examples).train()

    def hits(model: nn.Module) -> float:
        return float((model(input_ids=words).logits.argmax(1) == words[:, 0] % 2).float().mean())

    make = lambda seed: transformers.DistilBertForSequenceClassification(config)  # noqa: E731
    search = found(tmp_path, train, model=make, data=None, evaluate=hits, steps=4)
    assert search.levels[1].replicates[0].kept < search.levels[1].replicates[0].prunable


def test_no_winning_ticket_is_said_as_in_any_search(tmp_path):
    def worse(model: nn.Module) -> float:
        return float((next(model.parameters()) != 0).float().mean())

    with pytest.raises(NoWinningTicket):
        found(tmp_path, plain, data=None, evaluate=worse, tolerance=0.0)


def test_without_an_evaluate_a_network_is_measured_on_validation_and_test_data():
    model = nn.Linear(1, 1)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.zeros_(model.bias)
    ones, threes = (Tensors(torch.full((2, 1), value), torch.zeros(2, 1)) for value in (1.0, 3.0))
    objective = objective_for(torch.zeros(2, 1))
    measure = measured_on(Parts(ones, ones, threes, "few"), objective, torch.device("cpu"), 1)
    assert measure(model)[::2] == (1.0, 9.0)  # mean squared errors
    assert measured_on(Parts(ones, threes, None, "few"), objective, torch.device("cpu"), 1)(model)[2:] == (None, None)
