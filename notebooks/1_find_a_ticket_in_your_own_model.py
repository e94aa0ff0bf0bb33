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
# # Find a ticket in your own model
#
# **Can most of your network be removed *before* training, without anybody noticing?**
#
# Frankle and Carbin (2019) say yes, for some networks: somewhere inside the freshly initialized network sits a small
# sub-network, a *winning ticket*, that trains as well as the whole. They find it in hindsight: train, remove the
# smallest weights, put the survivors back to the values they had at the start, and repeat.
#
# This notebook does that to a model and data of our own, looks at what was found, and then asks the question that
# matters: is it the *structure* that wins, or the structure *together with its initial values*?

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from lottery import Data, Ticket, draw_density, find_ticket
from pruning.torch_modules import hold_mask

# %% [markdown]
# ## A model and data of your own
#
# Any `torch.nn.Module` will do. To repeat the search with other initializations (we want intervals, not anecdotes) we
# hand over a *callable* that makes the model; torch is seeded before each call.
#
# The data are 8×8 images of handwritten digits. We cut the parts ourselves. Choices are made on the validation part;
# the test part is only reported.


# %%
class TwoLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(64, 100)
        self.output = nn.Linear(100, 10)

    def forward(self, images):
        return self.output(torch.relu(self.hidden(images)))


x, y = load_digits(return_X_y=True)
x = ((x - x.mean()) / x.std()).astype("float32")
order = np.random.default_rng(0).permutation(len(x))
train, validation, test = order[:1000], order[1000:1400], order[1400:]
data = Data(
    train=(x[train], y[train]), validation=(x[validation], y[validation]), test=(x[test], y[test]), name="digits"
)

# %% [markdown]
# ## Search
#
# Every level trains the network, removes a fifth of the surviving weights, and rewinds the rest. `print` says what was
# found; everything else is under `ticket.search` and on disk, in `./runs`: the same call
# again would train nothing and return at once.
#
# "As good as the dense network" needs a number, fixed beforehand: here we accept one percentage point of validation
# accuracy. (The default is stricter: one standard error of the dense replicates.)

# %% tags=["parameters"]
STEPS = 400
REPLICATES = 3
LEVELS = 16
TOLERANCE = 0.01

# %%
settings = {"levels": LEVELS, "replicates": REPLICATES, "steps": STEPS, "tolerance": TOLERANCE}
ticket = find_ticket(TwoLayers, data, **settings)
print(ticket)

# %% [markdown]
# Would any small network have done? The control removes weights at random, to the same densities.

# %%
by_chance = find_ticket(TwoLayers, data, criterion="random", **settings)

# %%
figure, axes = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
draw_density(axes, ticket.search)
levels = by_chance.search.levels
axes.plot(
    [100 * level.density for level in levels],
    [100 * level.test for level in levels],
    "s--",
    color="#b8860b",
    ms=4,
    label="random masks, same densities",
)
axes.set_ylim(60, 100)
axes.legend(frameon=False, fontsize=8)
axes.set_title("Small networks train well, if they are the right ones")
# %% [markdown]
# The line of the ticket stays at the dense level long after the random networks have fallen away.
#
# The blue band is a 95 % interval over three replicates. It is honest and therefore wide: with three seeds, a
# difference of a few tenths of a percentage point means nothing.

# %% [markdown]
# ## What survived?
#
# The mask is a mapping from parameter names to boolean arrays. The first layer has one column for each pixel, so
# we can count how many of its weights survived for each pixel, and lay that beside the pixels' variance in the data.

# %%
keep = ticket.mask["hidden.weight"]
print(f"{ticket.mask.kept:,} of {ticket.mask.total:,} weights survive")

figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
pictures = [
    ("an image", x[train[0]].reshape(8, 8), "gray_r"),
    ("variance of each pixel", x[train].var(0).reshape(8, 8), "viridis"),
    ("surviving weights of each pixel", keep.sum(0).reshape(8, 8), "viridis"),
]
for panel, (title, picture, colors) in zip(panels, pictures, strict=True):
    shown = panel.imshow(picture, cmap=colors)
    panel.set_title(title, fontsize=10)
    panel.axis("off")
    figure.colorbar(shown, ax=panel, shrink=0.75)
correlation = np.corrcoef(x[train].var(0), keep.sum(0))[0, 1]
print(f"correlation of variance and survivors: {correlation:.2f}")

# %% [markdown]
# Nobody told the search that the borders of the images are empty. A pixel that never changes teaches its weights
# nothing beyond what a bias could learn; they stay about as small as they were drawn, and magnitude pruning lets them
# go first.

# %% [markdown]
# ## Is it the structure, or the initialization?
#
# `ticket.rewound(model)` is a plain PyTorch module: the caller's architecture, masked, at its saved initial values.
# Train it with any loop of your own: removed weights stay removed, because hooks zero their gradients.
#
# The control keeps the mask and draws *new* initial values.


# %%
def train_it(model, steps=STEPS, seed=0):
    """Train with Adam for some steps and return the test accuracy."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.tensor(x), torch.tensor(y)
    for _ in range(steps):
        batch = torch.tensor(train)[torch.randint(len(train), (64,), generator=generator)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
    return (model(images[test]).argmax(1) == labels[test]).float().mean().item()


sparsest = max(ticket.search.levels, key=lambda level: level.level)
print(f"density {sparsest.density:.1%}: test accuracy at the end of {settings['steps']} steps")
differences = []
for replicate in sparsest.replicates:
    sparse = Ticket.load(replicate.path)
    torch.manual_seed(1000 + replicate.seed)
    fresh = hold_mask(TwoLayers(), sparse.mask)
    from_ticket = train_it(sparse.rewound(TwoLayers()), seed=replicate.seed)
    from_fresh = train_it(fresh, seed=replicate.seed)
    differences.append(from_ticket - from_fresh)
    print(f"  seed {replicate.seed}: rewound {from_ticket:.3f}, new initialization {from_fresh:.3f}")
print(f"mean paired difference: {100 * np.mean(differences):+.1f} percentage points, n = {len(differences)}")

# %% [markdown]
# ## Keep it
#
# A ticket is a folder of open files: weights and mask as safetensors, the rest as JSON and Markdown.

# %%
saved = ticket.save(Path("my-ticket"))
for file in sorted(saved.path.iterdir()):
    print(f"{file.stat().st_size:>8,} bytes  {file.name}")
again = Ticket.load(saved.path)
assert again.mask == ticket.mask

# %% [markdown]
# ## Exercises
#
# 1. Rewind to step 50 instead of 0 (`rewind="50"`). Does the curve change? For networks this small it should not; for
#    a ResNet it decides whether there is a ticket at all (Frankle et al., 2020).
# 2. Let every layer lose the same fraction (`scope="layer"`). Which layer is hurt? `lottery show` prints the densities.
# 3. Prune once instead of sixteen times: `densities=[0.03]`. How much of the accuracy does iterating buy?
# 4. Put your own model and data in the second cell. If it has batch norm, what should happen to the running
#    statistics on rewinding, and what does happen? (`ticket.params` has them.)
# 5. Three replicates gave wide intervals. How many would you need to tell the ticket from the dense network at 10 %?
