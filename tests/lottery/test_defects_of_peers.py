"""Defects found in other projects by reading them, each as a test named after it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest
import typer

import es
import lottery
import pruning
from es.strategies import make_strategy
from lottery import Data, find_ticket
from lottery.cli.app import run
from lottery.cli.commands import command_line
from lottery.runs.directory import RunDirectory
from lottery.studies.ablation.controls import ABLATIONS
from pruning.criteria import get_criterion
from pruning.jobs import Budget, Job, Trained
from pruning.mask import Mask
from pruning.selection import select
from tests.lottery.helpers import assert_same_arrays, blobs, tiny_model
from tests.lottery.test_ablations import subject

ROOT = Path(__file__).parents[2]
DATA = Data(train=blobs(96), validation=blobs(30, seed=1), test=blobs(30, seed=2))
SETTINGS = {"levels": 2, "steps": 24, "batch_size": 16, "tolerance": 1.0}
PACKAGES = (pruning, es, lottery)


def test_lightning_lottery_ticket_flag_never_rewound(tmp_path):
    """Its ModelPruning let survivors keep their trained weights, and logged a wrong sparsity."""
    model = tiny_model()
    search = find_ticket(model, DATA, **SETTINGS, out=tmp_path).search
    assert search is not None
    folder = RunDirectory(search.run)
    for level in (1, 2):
        assert_same_arrays(folder.read_rewound(0, level), folder.read_rewound(0, 0))
        mask = folder.read_mask(0, level)
        counted = 1 - sum(int(keep.sum()) for keep in mask.values()) / sum(keep.size for keep in mask.values())
        assert folder.read_record(0, level)["sparsity"] == pytest.approx(counted)
    # lightning#21717: a second training with the same object raised
    again = find_ticket(model, DATA, **SETTINGS, out=tmp_path / "again").search
    assert again is not None and again.winner == search.winner


def test_synaptic_flow_shuffle_shuffled_nothing():
    """Pruner.shuffle bound the permuted mask to a local name."""
    for kind in ("shuffle-mask", "shuffle-units", "random-layers"):
        about = subject()
        control = ABLATIONS[kind].value(about)
        assert control.mask != about.mask and control.mask.counts() == about.mask.counts()


def test_synaptic_flow_false_meant_true(tmp_path, monkeypatch, capsys):
    """`--shuffle False` was true: every flag was parsed as bool("False")."""
    monkeypatch.chdir(tmp_path)
    assert run(["prune", "--force", "False"]) == 2
    assert run(["prune", "--set", "nesterov=False"]) == 2
    assert "nesterov must be true or false, not 'False'" in capsys.readouterr().err


def test_rahulvigneswaran_negative_weights_were_frozen(tmp_path):
    """The gradient mask compared signed weights with a threshold, so that no negative weight ever moved."""
    search = find_ticket(tiny_model, DATA, **SETTINGS, out=tmp_path).search
    assert search is not None
    folder = RunDirectory(search.run)
    start, trained = folder.read_rewound(0, 2), folder.read_trained(0, 2).params
    for name, keep in folder.read_mask(0, 2).items():
        negative = keep & (start[name] < 0)
        assert negative.any()
        assert (trained[name][negative] != start[name][negative]).mean() > 0.9
        assert (trained[name][~keep] == 0).all()


def test_open_lth_random_pruning_iterated_over_keys_as_pairs():
    """randomly_prune --strategy even raised ValueError: nobody had run it. Each control runs on its own here."""
    others = {1: subject().mask}
    for entry in ABLATIONS:
        control = entry.value(subject(others=others))
        assert control.mask.kept == subject().mask.kept


def _modules():
    for package in PACKAGES:
        yield package.__name__
        yield from (m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))


def test_turboprune_imported_what_it_did_not_declare():
    """utils/mask_layers.py imports fastargs, which requirements.txt lacks. Every import here is declared."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    spelled = {"scikit-learn": "sklearn", "ml-dtypes": "ml_dtypes", "pillow": "PIL"}
    declared = {re.split(r"[<>=!\[ ]", line)[0] for line in [*project["dependencies"], *extras]}
    known = {spelled.get(name, name) for name in declared} | {"pruning", "es", "lottery"} | sys.stdlib_module_names
    for name in ("pruning", "es", "lottery"):
        for path in (ROOT / name).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                assert {n.split(".")[0] for n in names} <= known, path


def test_turboprune_pasted_its_top_k_into_five_functions():
    """Here one file finds the highest scores, and no criterion, ablation or probe has its own way."""
    python = [path for name in ("pruning", "lottery") for path in (ROOT / name).rglob("*.py")]
    sought = re.compile(r"\.partition\(len|argpartition|np\.argsort\(-scores\[")
    assert {path.relative_to(ROOT).as_posix() for path in python if sought.search(path.read_text())} == {
        "pruning/selection.py"
    }


@pytest.mark.parametrize("name", ["sep-cma-es", "snes", "pgpe"])
def test_es_lottery_took_a_variance_for_a_standard_deviation(name):
    """SNR used C where the search distribution is N(m, sigma² C): the std must be that of what is sampled."""
    mean = jax.numpy.asarray(np.linspace(-1.0, 1.0, 6), jax.numpy.float32)
    strategy = make_strategy(name, 512, 6, 0.1, {})
    state = strategy.init(jax.random.PRNGKey(0), mean)
    key = jax.random.PRNGKey(1)
    for step in range(40):
        key, ask, tell = jax.random.split(jax.random.fold_in(key, step), 3)
        population, asked = strategy.ask(ask, state)
        losses = (population**2 * jax.numpy.asarray([100.0, 1, 1, 1, 1, 0.01])).sum(1)
        state = strategy.tell(tell, population, losses, asked)
    drawn = jax.numpy.concatenate([strategy.ask(jax.random.PRNGKey(i), state)[0] for i in range(20)])
    assert np.allclose(drawn.std(0), strategy.std(state), rtol=0.05)


def test_es_lottery_grasp_kept_what_it_should_remove():
    """Its threshold was at the wrong end: the largest −w·(Hg) must go."""
    mask, rng = Mask({"w": np.ones(10)}), np.random.default_rng(0)
    weights, products = rng.standard_normal((2, 10))
    trained = Trained({"w": weights}, [], evidence={"hessian_gradients": {"w": products}})
    scores = get_criterion("grasp").score(trained, Job({"w": weights}, mask, 0, Budget(0, 0)))
    kept = select(scores, mask, 4)["w"]
    harm = -weights * products
    assert kept.sum() == 4 and harm[kept].max() <= harm[~kept].min()


def test_es_lottery_dropped_weights_that_happened_to_be_zero():
    """It took survivors for entries ≠ 0: a survivor that is 0 is a survivor, and trains."""
    mask = Mask({"w": np.ones(6)})
    scores = get_criterion("magnitude").score(Trained({"w": np.zeros(6)}, []), Job({}, mask, 0, Budget(0, 0)))
    assert select(scores, mask, 4).kept == 4


def test_es_lottery_named_a_method_that_its_own_check_refused(tmp_path):
    """`movement` was dispatched and rejected: every name that is listed runs (here those that need no training)."""
    search = find_ticket(tiny_model, DATA, **SETTINGS, criterion="movement", out=tmp_path).search
    assert search is not None and len(search.levels) == 3


@pytest.mark.parametrize("module", sorted(_modules()))
def test_jaxpruner_had_entry_points_that_could_not_be_called(module):
    """A partial that decorated nothing, a call with too few arguments: here every public name is there."""
    if module.endswith(("__main__", ".brax")):
        pytest.skip("runs a program, or needs an extra")
    imported = importlib.import_module(module)
    for name in getattr(imported, "__all__", ()):
        assert getattr(imported, name) is not None


def test_jaxpruners_readme_had_a_command_that_was_none():
    """Every `lottery` command of the README exists, with every option that the README gives it."""
    lines = re.findall(r"\$ (lottery .+)", (ROOT / "README.md").read_text())
    assert len(lines) > 20
    for line in lines:
        words = line.split("#")[0].split()
        name = words[1]
        command = typer.main.get_command(command_line(words))
        assert name in command.commands, line  # pyright: ignore[reportAttributeAccessIssue]
        known = {o for p in command.commands[name].params for o in p.opts}  # pyright: ignore[reportAttributeAccessIssue]
        assert {word for word in words if word.startswith("--")} <= known, line
