"""What masks of a search cover, and that whatever they leave out is said: before anything is trained."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm
from torch.utils._python_dispatch import _get_current_dispatch_mode

from lottery.cli.terminal.warned import one_line_warnings
from lottery.networks.initializers.fans import Fans, redraw
from lottery.networks.initializers.first import FIRST
from lottery.networks.sources.redrawing import SameWeights, warn_not_redrawn
from lottery.runs.given import Given
from lottery.search.frame.coverage import NotPrunable
from lottery.search.frame.using import OrderNotFollowed
from lottery.search.preparing.preparing import Prepared, Request, prepare_search
from pruning.errors import BadValue, NothingToPrune
from pruning.mask import Mask
from pruning.selection import select
from pruning.uses.following import Following
from pruning.watch import Silent

DATA = (np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32), np.arange(60) % 3)


def prepared(model: Any, **settings: Any) -> Prepared:
    settings = {"levels": 1, "steps": 10} | settings if settings.get("trainer") != "es" else {"levels": 1} | settings
    return prepare_search(Request(Given(model, DATA), settings), Silent())


def covered(model: Any, **settings: Any) -> list[str]:
    return list(prepared(model, **settings).frame.dense[0])


class HeadFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.stem, self.body = nn.Linear(8, 3), nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.body(torch.relu(self.stem(x)))))


class Own(nn.Module):
    """A layer, a matrix of its own, a table, and a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(6, 3), nn.Embedding(2, 6)
        self.mixing, self.temperature = nn.Parameter(torch.eye(6)), nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x @ self.mixing + self.table.weight[0]) * self.temperature


def unfollowed(kind: Any) -> Any:
    """Return a kind of network whose outputs no operation leads to, as far as anybody can see."""

    class Unfollowed(kind):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if isinstance(_get_current_dispatch_mode(), Following):
                raise RuntimeError("not while I am watched")
            return super().forward(x)

    return Unfollowed


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


JAX = (
    {"a": np.ones((8, 3), np.float32), "z": np.ones((6, 8), np.float32), "s": np.ones((), np.float32)},
    lambda p, x: (x @ p["z"]) @ p["a"] * p["s"],
)


class Scaled(Own):
    """Its matrix multiplies activations element by element."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer((x[:, None] * self.mixing).sum(-1) + self.table.weight[0]) * self.temperature


class TestFoundByUse:
    def test_parametrizations_that_keep_zeros_and_a_modules_own_matrices(self):
        normed = nn.Sequential(weight_norm(nn.Linear(6, 9)), nn.ReLU(), spectral_norm(nn.Linear(9, 4)), nn.Linear(4, 3))
        assert covered(normed) == [
            "0.parametrizations.weight.original1",
            "2.parametrizations.weight.original",
            "3.weight",
        ]
        assert covered(Own()) == ["mixing", "layer.weight"]

    def test_evolution_finds_the_same(self):
        assert covered(Own(), trainer="es") == ["mixing", "layer.weight"]
        tree = {"bias_maker": {"scale": np.ones((6, 8), np.float32)}, "head": {"kernel": np.ones((8, 3), np.float32)}}
        pair = (tree, lambda p, x: x @ p["bias_maker"]["scale"] @ p["head"]["kernel"])
        assert covered(pair, trainer="es") == ["bias_maker.scale", "head.kernel"]

    def test_what_a_pair_looks_up_or_adds_stays_dense(self):
        tree = {name: np.ones(shape, np.float32) for name, shape in {"t": (3, 6), "pos": (1, 6), "w": (6, 3)}.items()}

        def apply(p: Any, x: Any) -> Any:
            return (p["t"][x[:, 0].astype(int) % 3] + x + p["pos"]) @ p["w"]

        assert covered((tree, apply), trainer="es") == ["w"]

    def test_without_a_pass_to_follow_the_kinds_of_layers_decide_and_it_is_said(self):
        with pytest.warns(NotPrunable, match=r"'mixing' \(36\)"):
            ready = prepared(unfollowed(Own)())
        assert list(ready.frame.dense[0]) == ["layer.weight"]
        assert "could not be followed (RuntimeError: not while I am watched)" in str(ready.frame.facts.coverage)
        assert ready.frame.facts.coverage.multiply_adds is None

    def test_where_nothing_is_candidates_are_named(self):
        class Table(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.shift = nn.Parameter(torch.zeros(6, 6))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return (x[:, None] + self.shift).sum(-1)[:, :3]

        with pytest.raises(NothingToPrune, match=r"name some with `prunable`: 'shift' \(added to or joined with act"):
            covered(Table())

    def test_the_share_that_is_covered_is_stored_and_said(self):
        ready = prepared(Own())
        assert ready.frame.facts.as_json()["coverage"] == ready.frame.facts.coverage.as_json()
        assert str(ready.frame.facts.coverage) == (
            "masks cover 77.1 % of the parameters, 100 % of the multiply-adds; left dense: table.weight (17.1 %), "
            "biases and other vectors (5.71 %)"
        )


class TestNamed:
    def test_weights_that_are_computed_so_that_zeros_are_lost(self):
        network = nn.Sequential(orthogonal(nn.Linear(6, 6)), nn.Linear(6, 3))
        with pytest.warns(
            NotPrunable, match=r"^57.1 % of the trainable weights .*original' \(36: a 0 in it is no 0 in"
        ):
            assert covered(network) == ["1.weight"]

    def test_matrices_that_multiply_element_by_element(self):
        with pytest.warns(NotPrunable, match=r"'mixing' \(36: multiplies activations element by element\)") as said:
            covered(Scaled())
        assert len(said) == 1 and "table" not in str(said[0].message) and "\n" not in str(said[0].message)
        with pytest.warns(NotPrunable, match="'mixing'"):
            covered(Scaled(), trainer="es")

    @pytest.mark.parametrize(
        "settings", [{"skip": ("mixing",)}, {"prunable": ("layer.weight",)}, {"prunable": ("mixing",)}]
    )
    def test_what_was_asked_for_is_not_news(self, settings):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            covered(Scaled(), **settings)

    @pytest.mark.parametrize(("model", "trainer"), [(Own(), "gd"), (Own(), "es"), (JAX, "es")])
    def test_a_single_number_is_refused(self, model, trainer):
        with pytest.raises(BadValue, match=r"'(temperature|s)' is a single number .* name it in `skip`"):
            covered(model, trainer=trainer, prunable=("*",))


def test_the_command_line_warns_in_one_line(capsys):
    with one_line_warnings():
        warnings.simplefilter("always")
        warnings.warn("some weights\nstay dense", NotPrunable, stacklevel=1)
    assert capsys.readouterr() == ("", "lottery: warning: some weights stay dense\n")


class TestOutputs:
    @pytest.mark.parametrize("scope", ["layer", "global"])
    def test_rows_leave_them_alone_wherever_they_are_defined(self, scope):
        assert covered(HeadFirst(), pattern="rows", scope=scope) == ["stem.weight", "body.weight"]
        assert covered(HeadFirst(), pattern="rows", scope=scope, prunable=("*.weight",)) == [
            "stem.weight",
            "body.weight",
        ]
        assert covered(JAX, trainer="es", pattern="rows", scope=scope) == ["z"]

    def test_a_search_knows_the_axes_of_its_layers(self):
        def network(seed: int) -> nn.Module:
            return nn.Sequential(nn.Unflatten(1, (2, 3)), nn.ConvTranspose1d(2, 4, 3), nn.Flatten(), nn.Linear(20, 3))

        drawing = prepared(network, pattern="rows").plan.drawing
        scores = {"1.weight": np.arange(24.0).reshape(2, 4, 3)}
        kept = select(scores, Mask.dense({"1.weight": (2, 4, 3)}), 12, 1, drawing.pattern)["1.weight"]
        assert kept.any((0, 2)).tolist() == kept.all((0, 2)).tolist() == [False, False, True, True]
        kernel = prepared(JAX, trainer="es", pattern="rows").plan.drawing.pattern.axes["z"]
        assert (kernel.outputs, kernel.inputs) == ((1,), (0,))

    def test_unless_they_are_named(self):
        assert "head.weight" in covered(HeadFirst(), pattern="rows", prunable=("head.weight", "body.*"))
        with pytest.raises(NothingToPrune, match="'weight' makes those of the network itself; name it in `prunable`"):
            covered(nn.Linear(6, 3), pattern="rows")

    def test_the_rate_of_their_layer_is_halved(self):
        target = prepared(HeadFirst(), scope="layer").plan.targets[1]
        assert target == {"head.weight": 22, "stem.weight": 38, "body.weight": 51}
        assert prepared(JAX, trainer="es", scope="layer").plan.targets[1] == {"a": 22, "z": 38}

    def test_of_a_head_that_stays_dense_nothing_is_halved(self):
        target = prepared(HeadFirst(), scope="layer", skip=("head.weight",)).plan.targets[1]
        assert target == {"stem.weight": 38, "body.weight": 51}

    def test_depth_counts_layers_as_they_run(self):
        target = prepared(HeadFirst(), scope="smart-ratio").plan.targets[1]
        assert isinstance(target, dict) and target["head.weight"] == 7  # 30 % of 24

    def test_a_network_that_cannot_be_followed_is_told(self):
        with pytest.warns(OrderNotFollowed, match="not while I am watched.*'second.weight' for the layer that makes"):
            assert covered(unfollowed(TwoLayers)(), pattern="rows") == ["first.weight"]
        with pytest.warns(OrderNotFollowed, match="scope 'layer'"):
            assert prepared(unfollowed(TwoLayers)(), scope="layer").plan.targets[1] == {
                "first.weight": 38,
                "second.weight": 22,
            }

    def test_a_pattern_asks_for_axes_that_are_known(self):
        class Reshaped(Own):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layer(x @ (self.mixing + self.mixing.T))

        with pytest.raises(BadValue, match="pattern 'rows': which axes of 'mixing' are outputs .* name it in `skip`"):
            covered(Reshaped(), pattern="rows", prunable=("mixing",))
        assert covered(Reshaped(), prunable=("mixing",)) == ["mixing"]


class TestDrawn:
    def test_gates_and_projections_have_fans_of_their_own(self):
        seen: dict[tuple[int, ...], Fans] = {}
        layers = [
            nn.LSTM(5, 7),
            nn.MultiheadAttention(6, 2),
            nn.Bilinear(2, 3, 4),
            nn.ConvTranspose2d(8, 4, 3, groups=2),
        ]
        redraw(nn.ModuleList(layers), lambda weight, fans: seen.update({tuple(weight.shape): fans}))
        assert seen == {
            (28, 5): Fans(5, 7),
            (28, 7): Fans(7, 7),
            (18, 6): Fans(6, 6),
            (6, 6): Fans(6, 6),
            (4, 2, 3): Fans(6, 4),
            (8, 2, 3, 3): Fans(36, 36),
        }
        assert all(not p.any() for layer in layers for name, p in layer.named_parameters() if "bias" in name)

    @pytest.mark.parametrize("init", FIRST)
    @pytest.mark.parametrize("layer", [nn.LSTM(6, 4), nn.GRUCell(6, 4), nn.MultiheadAttention(6, 2, kdim=3, vdim=3)])
    def test_every_prunable_tensor_is_drawn(self, init, layer):
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        FIRST[init](layer)
        assert not [n for n, p in layer.named_parameters() if "weight" in n and torch.equal(before[n], p)]

    def test_a_weight_that_is_computed_is_set_or_refused(self):
        layer = weight_norm(nn.Linear(40, 30))
        FIRST["kaiming-normal"](layer)
        assert layer(torch.eye(40)).var().item() == pytest.approx(2 / 40, rel=0.2)
        with pytest.raises(BadValue, match="init draws no weights for '0.weight'"):
            FIRST["kaiming-normal"](nn.Sequential(spectral_norm(nn.Linear(4, 3))))

    def test_a_prunable_tensor_that_it_does_not_draw_is_refused(self):
        with pytest.raises(BadValue, match="init 'glorot-normal' does not redraw the prunable tensor 'mixing'"):
            prepared(Own(), init="glorot-normal", prunable=("mixing", "layer.weight"))

    @pytest.mark.parametrize("init", ["glorot-normal", "kaiming-normal", "lecun-normal", "openlth"])
    @pytest.mark.parametrize("shape", [(6, 3), (2, 6, 3)], ids=["transposed", "experts"])
    def test_so_is_one_that_is_prunable_for_its_use(self, init, shape):
        class Used(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer, self.used = nn.Linear(6, 6), nn.Parameter(torch.randn(*shape))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                found = self.layer(x) @ self.used
                return found if found.ndim == 2 else found.sum(0)

        with pytest.raises(BadValue, match=f"init '{init}' does not redraw the prunable tensor 'used'"):
            prepared(Used(), init=init)

    def test_replicates_of_one_start_are_told(self):
        def same(seed: int) -> nn.Module:
            torch.manual_seed(7)
            return nn.Linear(6, 3)

        with pytest.warns(SameWeights, match="replicates 0 and 1 begin at the same weights in 'weight' of 1"):
            prepared(same, replicates=2)

    def test_a_control_that_redraws_a_part_is_told(self):
        own = {"a": np.array([1.0, 2.0]), "b": np.array([3.0, 4.0]), "zero": np.zeros(2)}
        with pytest.warns(SameWeights, match="'b' of the prunable tensors stays as it was"):
            warn_not_redrawn(own, {**own, "a": np.array([5.0, 6.0])}, own)
