"""A copy of a module computes with itself: whatever refers to the original in the original refers to the copy in it."""

import functools
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from pruning.copies.copying import copy_module
from pruning.copies.own_parameters import check_as_it_runs, gradients_within, require_own_parameters
from pruning.errors import BadValue
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.module import sparse_module
from pruning.torch_modules import clean_copy, hold_mask, is_held, prunable

INPUTS = torch.linspace(-1, 1, 8).reshape(2, 4)


class Net(nn.Module):
    """4-3-2; `setup` replaces how the first layer is called."""

    def __init__(self, setup: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)
        self.run: Any = setup(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.run(x)))

    def once(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


def called(net: Any, x: torch.Tensor) -> torch.Tensor:
    return net.first(x)


class Caller:
    __slots__ = ("function",)

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Child(nn.Module):
    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.parent = (parent,)  # in a tuple, where PyTorch sees no module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parent: Any = self.parent[0]
        return called(parent() if isinstance(parent, weakref.ref) else parent, x)


def in_a_decorator(net: Any) -> Any:
    @functools.wraps(called)
    def inner(x: torch.Tensor) -> torch.Tensor:
        return called(net, x)

    return inner


def replaced(net: Any) -> Any:
    before = net.first.forward
    net.first.forward = lambda x: 2 * before(x)
    return net.once


def of_functions(net: Any) -> Any:
    layers = {net: net.first}
    found = functools.lru_cache(lambda key: layers[net])
    return lambda x: found(0)(x)


def by_a_weak_method(net: Any) -> Any:
    reference = weakref.WeakMethod(net.once)

    def run(x: torch.Tensor) -> torch.Tensor:
        method: Any = reference()
        return method(x)

    return run


WAYS: dict[str, Callable[[Any], Any]] = {
    "lambda over self": lambda net: lambda x: net.first(x),
    "lambda over a layer": lambda net: (lambda layer: lambda x: layer(x))(net.first),
    "lambda over a weight": lambda net: (lambda w: lambda x: x @ w.T)(net.first.weight),
    "default argument": lambda net: lambda x, net=net: called(net, x),
    "decorated function": in_a_decorator,
    "bound method": lambda net: net.once,
    "method of a function with a closure": lambda net: types.MethodType(lambda self, x: called(net, x), net),
    "partial": lambda net: functools.partial(called, net),
    "object with slots": lambda net: Caller(lambda x: net.first(x)),
    "cached function": of_functions,
    "weak reference to the parent": lambda net: Child(weakref.ref(net)),
    "weak proxy of the parent": lambda net: Child(weakref.proxy(net)),
    "weak reference to a method": by_a_weak_method,
    "replaced forward": replaced,
    "cached view": lambda net: (lambda view: lambda x: x @ view.view(3, 4).T)(net.first.weight.view(-1)),
    "view in a list": lambda net: Caller(functools.partial(lambda ws, x: x @ ws[0], [net.first.weight.t()])),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_trains_its_own_parameters_and_the_original_gets_nothing(way):
    net: Any = Net(WAYS[way])
    copy: Any = copy_module(net)
    outputs = copy(INPUTS)
    assert torch.equal(outputs, net(INPUTS))
    require_own_parameters(copy, outputs)
    outputs.square().sum().backward()
    assert copy.first.weight.grad is not None and net.first.weight.grad is None
    with torch.no_grad():
        copy.first.weight.zero_()
        copy.first.bias.zero_()
    assert torch.equal(copy(INPUTS), copy.second.bias.expand(2, 2))  # what it computes is what it holds


GLOBAL: Any = None


def by_a_global_name(net: Any) -> Any:
    global GLOBAL
    GLOBAL = net
    return lambda x: GLOBAL.first(x)


def by_a_class_around_it(net: Any) -> Any:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return called(net, x)

    return Inner()


@pytest.mark.parametrize("way", [by_a_global_name, by_a_class_around_it, lambda net: nn.Linear(4, 3).__call__])
def test_a_copy_that_computes_with_foreign_parameters_is_refused(way):
    copy: Any = copy_module(Net(way))
    foreign = nn.Linear(3, 2)
    with pytest.raises(BadValue, match=r"Net computes with \d trainable parameters that it does not hold .* `self`"):
        require_own_parameters(copy, {"out": foreign(copy.run(INPUTS))})


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("outside", [True, False])
def test_a_graph_that_checkpointing_hides_is_looked_into(reentrant, outside):
    def again(net: Any) -> Any:
        global GLOBAL
        GLOBAL = net
        return lambda x, net=net: checkpoint((GLOBAL if outside else net).inner, net.first(x), use_reentrant=reentrant)

    net: Any = Net(again)
    net.inner = nn.Linear(3, 3)
    net.inner.weight.grad = torch.ones(3, 3)  # of the caller's own training
    copy: Any = copy_module(net)
    copy.inner.weight.grad = None

    def trained() -> None:
        outputs = copy(INPUTS)
        require_own_parameters(copy, outputs)
        with gradients_within(copy, outputs):
            outputs.square().sum().backward()

    if outside:
        with pytest.raises(BadValue, match="Net computes with 2 trainable parameters that it does not hold"):
            trained()
        with pytest.raises(BadValue, match="Net computes with 2 trainable parameters that it does not hold"):
            check_as_it_runs(copy, lambda: copy(INPUTS))
        assert copy.inner.weight.grad is None
    else:
        trained()
        check_as_it_runs(copy, lambda: copy(INPUTS))
        assert copy.inner.weight.grad is not None
    assert torch.equal(net.inner.weight.grad, torch.ones(3, 3)) and net.inner.bias.grad is None


def test_a_loss_may_train_parameters_of_its_own():
    net, loss = nn.Linear(4, 3), nn.Linear(3, 1)
    value = checkpoint(loss, net(INPUTS), use_reentrant=True).sum()
    with gradients_within(net, value, [loss]):
        value.backward()
    assert loss.weight.grad is not None and net.weight.grad is not None


@pytest.mark.parametrize("way", ["lambda over a weight", "cached view", "in a list"])
def test_a_sparse_network_computes_with_the_weights_that_it_has_now(way):
    kept = {**WAYS, "in a list": lambda net: Caller(functools.partial(lambda ws, x: x @ ws[0].T, [net.first.weight]))}
    net, mask = Net(kept[way]), Mask({"first.weight": torch.eye(3, 4).bool().numpy()})
    module = sparse_module(net, mask, INPUTS, choosing=Choosing(cache=None)).eval()
    with torch.no_grad():
        for parameter in module.network.parameters():
            parameter.mul_(2)
        assert torch.allclose(module(INPUTS), module.network(INPUTS))
        assert not torch.allclose(module(INPUTS), net(INPUTS))


class TestHooks:
    def test_hooks_on_parameters_travel(self):
        net: Any = nn.Linear(2, 1, bias=False)
        net.weight.register_hook(lambda gradient: 2 * gradient)
        seen: list[bool] = []
        net.weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter is net.weight))
        copy: Any = copy_module(net)
        copy(torch.ones(1, 2)).sum().backward()
        assert copy.weight.grad is not None and copy.weight.grad.tolist() == [[2.0, 2.0]]
        assert seen == [False] and net.weight.grad is None

    def test_so_do_those_of_frozen_parameters_and_their_attributes(self):
        net: Any = nn.Linear(2, 1)
        net.weight.register_hook(lambda gradient: 3 * gradient)
        net.weight.requires_grad_(False)
        net.weight.no_decay = True
        copy: Any = copy_module(net)
        assert not copy.weight.requires_grad and copy.weight.no_decay
        copy.weight.requires_grad_()
        copy(torch.ones(1, 2)).sum().backward()
        assert copy.weight.grad is not None and copy.weight.grad.tolist() == [[3.0, 3.0]]

    def test_a_held_mask_is_held_once(self):
        copy: Any = copy_module(hold_mask(nn.Linear(2, 1), Mask({"weight": [[1, 0]]})))
        hooks: Any = copy.weight._post_accumulate_grad_hooks
        assert is_held(copy.weight) and len(hooks) == 1

    def test_hooks_on_modules_see_the_copy(self):
        net: Any = Net(lambda net: net.once)
        net.first.register_forward_hook(lambda module, inputs, outputs: outputs + net.first.bias)
        copy: Any = copy_module(net)
        require_own_parameters(copy, copy(INPUTS))


class TestWhatHasNoValue:
    def test_locks_are_new_ones(self):
        net: Any = nn.Linear(2, 1)
        net.lock, net.again, net.ready, net.local = (
            threading.Lock(),
            threading.RLock(),
            threading.Event(),
            threading.local(),
        )
        net.local.count = 3
        with net.lock, net.again:
            copy: Any = copy_module(net)
            assert copy.lock.acquire(blocking=False) and copy.again.acquire(blocking=False)
        net.ready.set()
        assert not copy.ready.wait(0) and copy.ready is not net.ready and copy.local.count == 3

    def test_methods_of_containers_are_the_copys(self):
        net: Any = nn.Linear(2, 1)
        net.seen = []
        net.note = net.seen.append
        copy: Any = copy_module(net)
        copy.note(1)
        assert copy.seen == [1] and net.seen == []

    def test_modules_of_python_are_shared(self):
        net: Any = nn.Linear(2, 1)
        net.library = torch
        assert copy_module(net).library is torch

    def test_a_variable_outside_stays_shared(self):
        """A hook that notes what it saw goes on noting it where its author looks."""
        net: Any = nn.Linear(2, 1)
        seen: list[bool] = []
        net.register_forward_hook(lambda module, inputs, outputs: seen.append(module is net))
        copy_module(net)(torch.ones(1, 2))
        assert seen == [True]  # and the module is the copy


class TestMemory:
    def test_views_in_one_memory_stay_in_one_memory(self):
        net: Any = nn.Linear(4, 3)
        net.rows, net.raw = [net.weight.detach()[1:]], net.weight.data
        copy: Any = copy_module(net)
        with torch.no_grad():
            copy.weight.fill_(7.0)
        assert copy.rows[0].eq(7).all() and copy.raw.eq(7).all() and not net.weight.eq(7).any()

    def test_parameters_that_lie_side_by_side_are_copied(self):
        net: Any = nn.Linear(4, 3)
        flat = torch.arange(15.0)
        net.weight, net.bias = nn.Parameter(flat[:12].view(3, 4)), nn.Parameter(flat[12:])
        copy: Any = copy_module(net)
        assert torch.equal(copy.weight, net.weight) and torch.equal(copy.bias, net.bias)

    def test_a_view_as_another_type_is_refused(self):
        net: Any = nn.Module()
        net.weight = nn.Parameter(torch.ones(3, 2))
        net.complex = torch.view_as_complex(net.weight)
        with pytest.raises(BadValue, match="make the view in forward"):
            copy_module(net)

    def test_two_parameters_in_one_memory_are_refused_by_name(self):
        net: Any = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4))
        net[1].weight = nn.Parameter(net[0].weight.detach().t())
        with pytest.raises(BadValue, match=r"'0.weight' and '1.weight' lie in one memory"):
            clean_copy(net)
        net[0].weight, net[1].weight = (nn.Parameter(half) for half in torch.zeros(3, 8).view(3, 2, 4).unbind(1))
        net[1] = nn.Linear(3, 4)
        assert list(prunable(clean_copy(net)[0])) == ["0.weight", "1.weight"]


def test_a_deepcopy_that_hands_out_the_original_is_refused():
    class Own(nn.Linear):
        def __deepcopy__(self, memo: Any) -> Any:
            return self

    with pytest.raises(BadValue, match="__deepcopy__ of Own does not copy 'weight'"):
        copy_module(Own(2, 1))
