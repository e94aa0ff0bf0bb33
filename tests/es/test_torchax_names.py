"""Names that torchax expects and torch has dropped are lent to it for its import, and taken back."""

import torch

from es.translation import torchax_names


def test_names_are_lent_and_taken_back(monkeypatch):
    monkeypatch.setattr(torchax_names, "_DROPPED_WHOLE", ("no_such_operator",))
    monkeypatch.setattr(torchax_names, "_DROPPED", {"relu": ("no_such_overload",)})
    aten = torch.ops.aten
    with torchax_names._lent_names():
        assert aten.no_such_operator.default is not None and len({aten.no_such_operator}) == 1
        assert aten.relu.no_such_overload is not None
    assert not hasattr(aten, "no_such_operator") and not hasattr(aten.relu, "no_such_overload")


def test_names_that_torch_has_stay_its_own(monkeypatch):
    relu = torch.ops.aten.relu
    monkeypatch.setattr(torchax_names, "_DROPPED_WHOLE", ("relu",))
    with torchax_names._lent_names():
        assert torch.ops.aten.relu is relu
    assert torch.ops.aten.relu is relu
