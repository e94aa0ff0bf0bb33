# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Run it fast: the sparse forward pass
#
# **Pruned, but same size, same speed?** That is the most frequent complaint about pruning, and it is deserved: setting
# weights to zero saves nothing. A dense product multiplies zeros as fast as anything else.
#
# A sparse product does less work, but does it less comfortably: it has to look up where each weight belongs. So there
# is a density at which it starts to pay, and that density depends on the shape of the layer, the batch, the type of the
# numbers and the machine. This notebook measures it on yours.

# %%
import copy
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from lottery import Data, find_ticket
from pruning.sparse.backends import BACKENDS
from pruning.sparse.choices import Choosing
from pruning.sparse.choosing.timing import race
from pruning.sparse.module import sparse_module
from pruning.sparse.weights.weight import SparseWeight

CPU = torch.device("cpu")
print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")

# %% tags=["parameters"]
STEPS = 100
TOLERANCE = 0.02

# %% [markdown]
# ## A ticket
#
# A network that is far too wide for its data, so that almost everything can go. Four levels, each of which removes
# sixty per cent of what is left.


# %%
class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 1024)
        self.second = nn.Linear(1024, 1024)
        self.output = nn.Linear(1024, 10)

    def forward(self, images):
        return self.output(torch.relu(self.second(torch.relu(self.first(images)))))


x, y = load_digits(return_X_y=True)
x = ((x - x.mean()) / x.std()).astype("float32")
order = np.random.default_rng(0).permutation(len(x))
data = Data(
    train=(x[order[:1200]], y[order[:1200]]),
    validation=(x[order[1200:1500]], y[order[1200:1500]]),
    test=(x[order[1500:]], y[order[1500:]]),
    name="digits",
)
ticket = find_ticket(Wide, data, levels=4, prune_rate=0.6, steps=STEPS, tolerance=TOLERANCE, lr=1e-3)
print(ticket)

# %% [markdown]
# ## `ticket.sparse(model, example)`
#
# The example tells which batch size matters. What comes back drops in for the model: same arguments, same outputs, same
# state dict. On the way it does three things.
#
# 1. **Compaction.** Units that nothing reads, or that read nothing, are taken out; what is constant becomes part of a
#    bias. Exact.
# 2. **A race.** Every layer runs a few ways on the example, the dense one always among them, and the fastest stays.
# 3. **A check.** What won is compared with the masked dense network, and the whole is timed against the whole.

# %%
images = torch.from_numpy(np.resize(x, (512, 64)))
fast = ticket.sparse(Wide(), images, choosing=Choosing(cache=None))
print(fast.report.text())

# %%
dense = ticket.trained(Wide()).eval()
with torch.no_grad():
    difference = (fast(images) - dense(images)).abs().max() / dense(images).abs().max()
    seconds = race({"dense": lambda: dense(images), "sparse": lambda: fast(images)}, CPU, 0.3)
print(f"largest difference: {difference:.1e} of the largest output")
print(f"dense {1e3 * seconds['dense']:.2f} ms, sparse {1e3 * seconds['sparse']:.2f} ms")

# %% [markdown]
# ## Where does it pay?
#
# One layer, random masks, three batch sizes. Every point is the faster of two sparse products against the faster of two
# dense layouts; below the dashed line dense is faster, and dense is what the module would run.

# %%
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
generator = torch.Generator().manual_seed(0)


def speedup(outputs, inputs, batch, density):
    keep = np.random.default_rng(0).random((outputs, inputs)) < density
    weight = torch.randn(outputs, inputs, generator=generator).masked_fill_(torch.from_numpy(~keep), 0)
    sparse = SparseWeight(weight, keep)
    by_batch = torch.randn(batch, inputs, generator=generator)
    by_feature = by_batch.t().contiguous()
    with torch.no_grad():
        runs = {"linear": lambda: by_batch @ weight.t(), "by feature": lambda: weight @ by_feature}
        for name in ("bags", "csr"):
            product = BACKENDS[name].value.product
            runs[name] = lambda product=product: product(sparse.values, by_feature, sparse.plan)
        taken = race(runs, CPU, 0.02)
    return min(taken["linear"], taken["by feature"]) / min(taken["bags"], taken["csr"])


batches = (1, 32, 512)
shapes = ((300, 784), (1024, 1024))
measured = {(shape, batch): [speedup(*shape, batch, d) for d in DENSITIES] for shape in shapes for batch in batches}

# %%
figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.9), sharey=True, layout="constrained")
for axes, shape in zip(panels, shapes, strict=True):
    for batch, color in zip(batches, ("#1f5fa8", "#7a6bb0", "#c8442c"), strict=True):
        axes.plot([100 * d for d in DENSITIES], measured[shape, batch], "o-", ms=4, color=color, label=f"batch {batch}")
    axes.axhline(1, color="#555555", lw=1, ls="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.set_xticks([100 * d for d in DENSITIES], [f"{100 * d:g}" for d in DENSITIES])
    axes.set_title(f"{shape[1]} → {shape[0]}", fontsize=10)
    axes.set_xlabel("weights that stay (%)")
panels[0].set_ylabel("speed-up over dense")
panels[0].legend(frameon=False, fontsize=8)
figure.suptitle("One layer, sparse against dense", fontsize=11)

# %% [markdown]
# A small layer and a batch of one pay late or never: what takes the time there is the call, not the arithmetic. On the
# machine that made this page, a fifth of the weights is few enough for a batch that fills the vector registers.

# %% [markdown]
# ## Training
#
# The trainable parameter of a sparse layer is the vector of its surviving values: optimizer states shrink with it, and
# removed weights cannot come back to life because there is no place for them. A step equals that of the masked dense
# network. Left to choose, a module trains the faster of the two; here every layer is made sparse (`backend="bags"`). A
# dense gradient does not exist then; methods that regrow weights (RigL) need one.

# %%
start = ticket.rewound(Wide())
sparse = sparse_module(start, ticket.mask, images, choosing=Choosing(backend="bags", cache=None)).train()
masked = copy.deepcopy(start)
targets = torch.from_numpy(np.resize(y, 512))
curves, paces = {}, {}
for name, network in (("masked dense", ticket.rewound(masked)), ("sparse", sparse)):
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    curves[name], began = [], time.perf_counter()
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        curves[name].append(loss.item())
    paces[name] = (time.perf_counter() - began) / 40
print({name: f"{1e3 * pace:.1f} ms a step" for name, pace in paces.items()})
counts = {"dense": sum(p.numel() for p in start.parameters()), "sparse": sum(p.numel() for p in sparse.parameters())}
print("trainable numbers:", counts)

# %%
figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
axes.plot(curves["masked dense"], color="#555555", lw=3, alpha=0.5, label="masked dense")
axes.plot(curves["sparse"], "--", color="#c8442c", label="sparse")
axes.set_xlabel("step")
axes.set_ylabel("training loss")
axes.legend(frameon=False)
axes.set_title("The same training, step by step")

# %% [markdown]
# ## What to remember
#
# - Measure on your own shapes: `lottery bench sparse TICKET` prints the report for a stored ticket.
# - On a GPU with tensor cores dense products are so fast that unstructured sparsity at large batches should pay only
#   below some three per cent of the weights (a model, see `results/README.md`). The dispatcher measures it.
# - Smaller files come with it: `lottery export TICKET --to csr` stores the surviving values and where they are.
# - Run it under `torch.no_grad()`: where gradients are wanted, the form that can be trained runs, without compaction.
