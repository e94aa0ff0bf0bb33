"""What to keep: masks, criteria, selection, schedules. Knows no training loop.

The core is NumPy on named arrays, so that PyTorch and JAX share it by construction; what needs a framework lives in
a file that says so (`torch_modules`, `pytrees`) and is imported only when used.
"""

from pruning.criteria import Criterion, criterion, get_criterion
from pruning.errors import LotteryError
from pruning.jobs import Answer, Budget, Evaluation, Job, Question, Trained, Trainer
from pruning.mask import Mask
from pruning.selection import select

__all__ = [
    "Answer",
    "Budget",
    "Criterion",
    "Evaluation",
    "Job",
    "LotteryError",
    "Mask",
    "Question",
    "Trained",
    "Trainer",
    "criterion",
    "get_criterion",
    "select",
]
