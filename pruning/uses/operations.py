"""What sees every operation that torch runs."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """A dispatch mode that does not load torch's compiler.

    torch wraps `__torch_dispatch__` so that its compiler leaves it alone, and for that imports the whole compiler on
    the first operation: two seconds. Nothing is compiled here.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
