"""A sparse network returns what the dense one does: the same types, in every form that may run."""

from __future__ import annotations

import copy
import os
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from pruning.calls.structures import same_structure, tensors_in
from pruning.mask import Mask
from pruning.sparse.choices import Choosing
from pruning.sparse.module import sparse_module
from pruning.torch_modules import prunable

os.environ["HF_HUB_OFFLINE"] = "1"
Named = namedtuple("Named", "y count")


@dataclass
class Result:
    y: torch.Tensor
    more: Any = None


@dataclass(frozen=True)
class FrozenResult:
    y: torch.Tensor
    more: Any = None


class Words(dict):
    pass


class Flagged(dict):
    """A mapping that cannot be made of a mapping alone."""

    def __init__(self, y: torch.Tensor, *, flag: bool) -> None:
        super().__init__(y=y)
        self.flag = flag


class Plain:
    def __init__(self, y: torch.Tensor) -> None:
        self.y = y


def of_transformers(y: torch.Tensor) -> Any:
    from transformers.modeling_outputs import SequenceClassifierOutput

    return SequenceClassifierOutput(logits=y, hidden_states=(y, y + 1))  # pyright: ignore[reportArgumentType]


def with_cache(y: torch.Tensor) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache()
    cache.update(y[:, None, None], y[:, None, None] + 1, 0)
    return Result(y, cache)


MAKES = {
    "tuple": lambda y: (y, None),
    "nested": lambda y: {"y": y, "z": [y, {"k": (y,)}]},
    "ordered": lambda y: OrderedDict(y=y, n=None),
    "user-dict": lambda y: UserDict(y=y),
    "default-dict": lambda y: defaultdict(list, y=y),
    "dict-subclass": lambda y: Words(y=y),
    "odd-dict": lambda y: Flagged(y, flag=True),
    "dataclass": lambda y: Result(y, {"z": (y, None)}),
    "frozen": FrozenResult,
    "named-tuple": lambda y: Named(y, 3),
    "object": Plain,
    "distribution": lambda y: torch.distributions.Categorical(logits=y),
    "transformers": of_transformers,
    "cache": with_cache,
}
# Those of which a trace can make another: nothing about them keeps the network from being compacted.
SEEN_THROUGH = {"tuple", "nested", "ordered", "user-dict", "dict-subclass", "dataclass", "frozen", "named-tuple"}


class Net(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.one, self.two, self.make = nn.Linear(40, 30), nn.Linear(30, 4), make

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(self.two(torch.relu(self.one(x))))


def random_mask(model: nn.Module) -> Mask:
    generator = torch.Generator().manual_seed(0)
    shapes = prunable(model)
    return Mask({name: (torch.rand(shape, generator=generator) < 0.2).numpy() for name, shape in shapes.items()})


@pytest.mark.parametrize("name", MAKES)
@pytest.mark.parametrize("by", ["model", "measure"])
def test_every_form_returns_the_dense_networks_type(name, by):
    if name in ("transformers", "cache"):
        pytest.importorskip("transformers")
    torch.manual_seed(0)
    model, x = Net(MAKES[name]), torch.randn(16, 40)
    mask = random_mask(model)
    module = sparse_module(model, mask, x, choosing=Choosing(by=by, cache=None, seconds=0.0)).eval()
    with torch.no_grad():
        wanted, found = mask.apply(copy.deepcopy(model)).eval()(x), module(x)
    assert type(found) is type(wanted) and same_structure(found, wanted)
    for mine, theirs in zip(tensors_in(found), tensors_in(wanted), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert same_structure(module(x), wanted), "the form that trains"
    assert same_structure(copy.deepcopy(module).train()(x), wanted)
    if name in SEEN_THROUGH and by == "model":
        assert not module.report.opaque


def test_an_argument_that_grows_is_run_by_the_network_itself():
    class Grows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor, past: list[torch.Tensor]) -> torch.Tensor:
            past.append(self.fc(x))
            return torch.stack(list(past)).sum(0)

    model, past = Grows(), [torch.ones(2, 8)]
    module = sparse_module(model, random_mask(model), torch.ones(2, 8), past, choosing=Choosing(cache=None)).eval()
    assert len(past) == 1, "the caller's stays as it was"
    assert "changes what it is given" in module.report.opaque[""]
    with torch.no_grad():
        module(torch.ones(2, 8), past)
    assert len(past) == 2


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("by", ["model", "measure"])
@pytest.mark.parametrize("name", ["bert", "t5", "llama"])
def test_language_models_of_transformers(name, by):
    pytest.importorskip("transformers")
    model, args = language_model(name)
    mask = random_mask(model)
    module = sparse_module(model, mask, *args, choosing=Choosing(by=by, cache=None, seconds=0.0)).eval()
    with torch.no_grad():
        wanted = mask.apply(copy.deepcopy(model)).eval()(*args)
        for found in (module(*args), module(*args)):  # twice: no cache may be carried over
            assert type(found) is type(wanted) and same_structure(found, wanted)
            torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-5)


def language_model(name: str) -> tuple[nn.Module, tuple[Any, ...]]:
    import transformers as hf

    torch.manual_seed(0)
    ids = torch.randint(4, 40, (4, 8), generator=torch.Generator().manual_seed(0))
    if name == "bert":
        config = hf.BertConfig(
            vocab_size=40,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
        return hf.BertForSequenceClassification(config).eval(), (ids, torch.ones_like(ids))
    if name == "llama":
        config = hf.LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=16,
        )
        return hf.LlamaForCausalLM(config).eval(), (ids,)
    config = hf.T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
    config.decoder_start_token_id = config.pad_token_id = 0
    return hf.T5ForConditionalGeneration(config).eval(), (ids, torch.ones_like(ids), ids)
