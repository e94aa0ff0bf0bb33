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
# # Start right: initializing a sparse network
#
# Usual initializations are made for dense networks. A layer's weights are drawn so that its outputs are about as large
# as its inputs. Take nine weights of ten away, and that is no longer so. In a deep network the error is made at every
# layer, and multiplies.
#
# This notebook draws sparse networks in several ways and asks, **before anything is trained**, whether they can train.
# Then it trains some of them. All of it is also on the command line: `lottery init MODEL --density 0.1 --init NAME`.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

from lottery import Ticket, find_ticket, start, train_ticket
from pruning.starts.gains import gain

plt.rcParams["figure.dpi"] = 75

# %% tags=["parameters"]
STEPS = 300

# %% [markdown]
# ## How a mask puts out the signal
#
# A unit adds up its inputs, each times a weight. For random weights of mean 0, the mean square of the sum is
#
# > number of live inputs × variance of the weights × mean square of an input.
#
# A dense draw sets the variance to about 1 / (number of *all* inputs), and the mean square passes unchanged. A mask of
# density $d$ leaves a share $d$ of the inputs, so that each layer multiplies the mean square by $d$. After $L$ layers
#
# $$E[h^2] \approx d^L.$$
#
# At 10 % density and 20 layers that is $10^{-20}$: every input gives the same answer, and nothing can be learned from
# it. Gradients go the same way back.
#
# `start` draws a network under a mask and reports on it. Our network, `deep-mlp`, has twenty tanh layers of 128 units,
# without normalization and without shortcuts, so that nothing repairs the signal on its way. Four schemes:
#
# | scheme | what it does under a mask |
# |---|---|
# | `glorot-normal` | the dense draw, whatever the mask |
# | `unit-scaled` | the variance of every unit follows from its live inputs |
# | `orthogonal` | an orthogonal matrix, masked, divided by the root of the density |
# | `exact-orthogonal` | chooses the mask itself, so that the *sparse* matrix is orthogonal |

# %%
SCHEMES = {
    "glorot-normal": ("dense draw, masked", "#999999"),
    "unit-scaled": ("unit-scaled", "#1f77b4"),
    "orthogonal": ("orthogonal, masked", "#b8860b"),
    "exact-orthogonal": ("exact orthogonal", "#2a7f3f"),
}
shape = {"scope": "uniform", "skip": ["head.weight"]}  # every layer has the same density; the last one stays dense


def sizes(report):
    """Return E[z²] of every hidden layer."""
    return [layer.signal.forward for layer in report.layers if layer.signal is not None][:20]


densities = [1.0, 0.5, 0.2, 0.05]
figure, panels = plt.subplots(1, 4, figsize=(11, 3), sharey=True, layout="constrained")
depth = np.arange(1, 21)
for panel, density in zip(panels, densities, strict=True):
    for (scheme, (label, color)), line in zip(SCHEMES.items(), ("-", "-", "--", "-."), strict=True):
        report = start("deep-mlp", "digits", density=density, init=scheme, **shape).report
        panel.semilogy(depth, sizes(report), line, color=color, label=label)
    panel.semilogy(depth, density**depth, ":", color="black", label="$d^L$")
    panel.set_title(f"density {density:.0%}", fontsize=10)
    panel.set_xlabel("layer")
    panel.grid(alpha=0.25)
panels[0].set_ylabel("E[z²]")
panels[0].legend(frameon=False, fontsize=8, loc="lower left")
plt.show()

# %% [markdown]
# The masked dense draw falls along the dotted line: nothing but the density decides how fast. (At density 1 it falls a
# little too: its variance does not make up for what tanh takes.) The other three are level at every density, and lie on
# top of each other. They know the mask, and also the gain of the function that follows, which `start` finds by
# following a batch through the model.

# %% [markdown]
# ## A network that does not train until it is started right
#
# One random mask at 10 % density, with more weights where layers are narrow (`erk`). First the model's own start under
# that mask, then new weights **under the same mask**. Only the sentence at the end of each report is printed here;
# `print(start(...))` shows the whole table.

# %%
own = start("deep-mlp", "digits", density=0.1, scope="erk", skip=["head.weight"])
scaled = start("deep-mlp", "digits", mask=own.ticket.mask, init="unit-scaled")
assert scaled.ticket.mask == own.ticket.mask
for name, started in (("the model's own", own), ("unit-scaled", scaled)):
    print(f"{name}: {started.report.verdict.sentence}")

# %% [markdown]
# A start holds a ticket, so that everything that takes a ticket takes it: `ticket.save`, `lottery show`,
# `ticket.rewound(model)` for a training loop of your own, and `train_ticket`, which trains it as a search would. Same
# mask, same data order, same optimizer:

# %%
settings = {"optimizer": "sgd", "momentum": 0.9, "lr": 0.05, "steps": STEPS, "eval_every": max(STEPS // 15, 1)}


def trained(started):
    """Train a start and return its one replicate."""
    (level,) = train_ticket(started.ticket, settings=settings).levels
    return level.replicates[0]


from_own, from_scaled = trained(own), trained(scaled)
figure, axes = plt.subplots(figsize=(5.5, 3), layout="constrained")
for label, color, replicate in (
    ("the model's own start", "#999999", from_own),
    ("unit-scaled", "#1f77b4", from_scaled),
):
    seen = replicate.history
    axes.plot([each.step for each in seen], [100 * each.test for each in seen], "o-", ms=3, color=color, label=label)
    print(f"{label}: test accuracy {replicate.final_test:.1%} after {STEPS} steps")
axes.axhline(10, ls=":", color="black", label="chance")
axes.set_xlabel("step")
axes.set_ylabel("test accuracy (%)")
axes.set_ylim(0, 100)
axes.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# The report was right about both. Nothing is wrong with this mask: the first network stayed at chance because of the
# numbers that it started with. **A control that starts like this proves nothing.** Whoever compares a ticket with "the
# same mask, new weights" should look at the start of the control first (`lottery ablate RUN --kind reinit --init
# unit-scaled`).

# %% [markdown]
# ## Exact orthogonal: mask and weights together
#
# Size is not all. A start may keep the mean square and still stretch some directions and lose others. What happens to a
# direction on its way through the network is told by the singular values of the **Jacobian**, the derivatives of the
# outputs at the inputs. Best is when all of them are alike (*dynamical isometry*).
#
# Masking an orthogonal matrix makes it orthogonal no more. Nowak et al. (2024) turn it round: begin with the identity,
# which is orthogonal and as sparse as can be, and rotate random pairs of columns until the wanted density is reached.
# Every rotation keeps the matrix orthogonal. The mask is wherever the result is not 0.
#
# Twenty layers once more, first without any function between them: then the singular values can be read off exactly.


# %%
def twenty_layers(function):
    """Return a callable that makes a deep network of 64 units with this function after each layer."""

    def make():
        layers = [part for _ in range(20) for part in (nn.Linear(64, 64, bias=False), function())]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 10, bias=False))

    return make


figure, panels = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
sparse = {"density": 0.1, "scope": "uniform", "skip": ["41.weight"]}
# A gain of 1 is the one at which tanh neither lets small signals grow nor lets them die.
for panel, function, chosen in ((panels[0], nn.Identity, {}), (panels[1], nn.Tanh, {"gain": 1.0})):
    for scheme in ("unit-scaled", "orthogonal", "exact-orthogonal"):
        label, color = SCHEMES[scheme]
        report = start(twenty_layers(function), "digits", init=scheme, init_params=chosen, **sparse).report
        panel.semilogy(range(1, 11), report.jacobian, "o-", ms=3, color=color, label=label)
        print(
            f"{function.__name__:9s} {label:19s} singular values {report.jacobian[0]:.4f} to {report.jacobian[-1]:.4f}"
        )
    panel.set_title(f"20 layers, {function.__name__}, density 10 %", fontsize=10)
    panel.set_xlabel("singular value of the Jacobian, the largest first")
    panel.grid(alpha=0.25)
panels[0].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Without a function between the layers, all ten singular values are 1: a network with a tenth of its weights that
# passes every direction on unchanged. With tanh they are no longer equal, but much closer together than for the
# others, whose smallest is a fortieth of the largest or less.
#
# The price: this scheme chooses its mask. It cannot start a ticket that was found, or a mask of SNIP's.

# %% [markdown]
# ## A mask that is given: repair
#
# For any mask there are weights that are *nearest* to an isometry; `repair="isometry"` finds such weights by gradient
# descent, layer by layer and without data (after Lee et al. 2020). How near is possible depends on the mask:
#
# - **Structural rank**: the highest rank that any weights under this mask can have. If a mask empties a row, or leaves
#   two rows with the same single column, no weights can bring the lost direction back.
# - **Effective density**: how many of the weights count (the participation ratio of their squares). A descent that only
#   looks at the isometry ends near a permutation: one large weight in each row (an effective density of 1/128, 0.8 %),
#   and many close to 0. The repair therefore charges a small price for unequal weights.
#
# Below, "near the gain" is the share of singular values within 20 % of the gain of tanh.

# %%
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3), sharey=True, layout="constrained")
print("density  start          rank of layer 10  effective density  near the gain  Jacobian")
for panel, density in zip(panels, (0.2, 0.1, 0.02), strict=True):
    mask = start("deep-mlp", "digits", density=density, **shape).ticket.mask
    for label, color, how in (
        ("unit-scaled", "#1f77b4", {"init": "unit-scaled"}),
        ("repaired", "#c8442c", {"repair": "isometry"}),
    ):
        started = start("deep-mlp", "digits", mask=mask, **how)
        layer = next(layer for layer in started.report.layers if layer.name == "fc10.weight")
        values = np.linalg.svd(started.ticket.params["fc10.weight"].astype(float), compute_uv=False)
        near = np.mean(np.abs(values / gain("tanh") - 1) < 0.2)
        rank, jacobian = f"{layer.rank}/{layer.full_rank}", started.report.jacobian
        print(
            f"{density:7.0%}  {label:13s}  {rank:>16s}  {layer.effective_density:17.2%}  {near:13.0%}  "
            f"{jacobian[0]:.2g} to {jacobian[-1]:.2g}"
        )
        panel.plot(range(1, 129), values, color=color, label=label)
    panel.axhline(gain("tanh"), ls=":", color="black", label="gain of tanh")
    panel.axvline(layer.rank, ls="--", color="#999999", label="structural rank")
    panel.set_title(f"density {density:.0%}", fontsize=10)
    panel.set_xlabel("singular values of layer 10")
    panel.grid(alpha=0.25)
panels[0].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# At 20 and 10 % the repair makes a flat line, at the gain of tanh, of what was a long slope. (A direction that the draw
# had all but lost may stay lost: see the last value at 20 %. There the descent sees no slope to follow.) At 2 % the
# mask decides. It has two or three weights in a row, its structural rank is below 128, and beyond the dashed line every
# singular value is 0 whatever the weights are. There a repair cannot help much, and the Jacobian may even be worse than
# after the plain draw. Look at the rank first.
#
# At 10 %, the mask of above, repaired:

# %%
repaired = start("deep-mlp", "digits", mask=own.ticket.mask, repair="isometry")
print(repaired.report.verdict.sentence)
print(f"test accuracy {trained(repaired).final_test:.1%}; unit-scaled {from_scaled.final_test:.1%}")

# %% [markdown]
# On data as easy as these the two do not differ; `results/` has harder ones. `lottery prune --criterion snip --repair
# isometry` repairs every pruned level of a search.

# %% [markdown]
# ## One learning rate for all densities
#
# A right start is right at step 0. The steps come next. Adam moves every weight by about the learning rate, whatever
# the gradient. A unit with $k$ live inputs therefore changes by about $k$ times the learning rate: at 1/64 of the
# density, 64 times less. The best learning rate of a dense network is too small for a sparse one.
#
# SμPar (Dey et al. 2024) corrects start and learning rate together: the variance of hidden weights is divided by the
# density, and so is their learning rate, both against a *base* network of known width and density. Here the base is
# the dense network itself. `init="smupar"` does the first, `lr_rule="smupar"` the second, under the mask of each level.
#
# One search for each learning rate; its levels are random masks at three densities. We compare the mean loss over all
# training steps: it tells how fast a network learns.

# %%
WIDTH = 128
RATES = [1e-3, 3e-3, 1e-2, 3e-2]


class FourLayers(nn.Module):
    def __init__(self):
        super().__init__()
        self.inputs = nn.Linear(64, WIDTH)
        self.hidden = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.outputs = nn.Linear(WIDTH, 10)

    def forward(self, images):
        signal = torch.tanh(self.inputs(images.flatten(1)))
        for layer in self.hidden:
            signal = torch.tanh(layer(signal))
        return self.outputs(signal)


base = {"base_width": WIDTH}
ways = {
    "standard": {"init": "lecun-normal"},
    "SμPar": {"init": "smupar", "init_params": base, "lr_rule": "smupar", "lr_rule_params": base},
}
random_masks = {
    "criterion": "random",
    "score_at": "rewind",
    "scope": "uniform",
    "skip": ["inputs.*", "outputs.*"],
    "densities": [1 / 8, 1 / 64],
    "redraw": True,  # new weights for each mask, by `init`
    "tolerance": 1.0,
}
steps = max(STEPS // 3, 1)
searches = {
    (way, rate): find_ticket(
        FourLayers,
        "digits",
        optimizer="adam",
        lr=rate,
        steps=steps,
        eval_every=steps,
        quiet=True,
        **random_masks,
        **how,
    ).search
    for way, how in ways.items()
    for rate in RATES
}

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
for panel, way in zip(panels, ways, strict=True):
    for index, (density, color) in enumerate((("1", "#1f2f6f"), ("1/8", "#4f8fcf"), ("1/64", "#c8442c"))):
        replicates = [searches[way, rate].levels[index].replicates[0] for rate in RATES]
        losses = [replicate.history[-1].train_loss for replicate in replicates]
        panel.loglog(RATES, losses, "o-", ms=3, color=color, label=f"density {density}")
        best = int(np.argmin(losses))
        panel.plot(RATES[best], losses[best], "*", ms=14, color=color)
        print(f"{way:8s} density {density:4s} losses {np.round(losses, 2)}, best learning rate {RATES[best]:g}")
    panel.set_title(way, fontsize=10)
    panel.set_xlabel("learning rate")
    panel.grid(alpha=0.25, which="both")
panels[0].set_ylabel("mean training loss")
panels[0].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# Standard: with the rates that are small for the dense network, the sparse ones hardly learn, and the sparsest has its
# best rate (the star) further to the right. Whoever tunes on the dense network and keeps the rate loses a lot there,
# and counts it against sparsity. SμPar: all three have the same best rate, and with an eighth of its hidden weights the
# network learns as fast as the dense one.
#
# At 1/64, where a unit has two weights, the best loss is about that of the standard network *at its own best rate*. So
# SμPar does not learn better than a tuned network: it spares the tuning. (One seed and four learning rates are a
# demonstration, not a measurement.)
#
# What the rule did is in the record of every ticket:

# %%
for level in searches["SμPar", 1e-2].levels:
    factors = Ticket.load(level.replicates[0].path).info["lr_factors"]
    hidden, inputs = factors["hidden.0.weight"], factors["inputs.weight"]
    print(f"level {level.level}: learning rate of hidden weights × {hidden:.3g}, of input weights × {inputs:g}")

# %% [markdown]
# ## What to take away
#
# - Look before you train: `lottery init MODEL --density 0.05`, or `print(start(...))`. It takes about a second.
# - A mask that is given: `unit-scaled` costs nothing; `repair="isometry"` evens out directions, where the mask allows
#   that.
# - A mask that is free: `exact-orthogonal` chooses it together with the weights.
# - Then the learning rate: `lr_rule="smupar"`, tuned once on the dense network.
# - A winning ticket needs none of this: its weights are those that it was found with, and rewinding never rescales
#   them.
#
# ## Exercises
#
# 1. `plain-cnn` has twenty ReLU convolutions. Draw the first figure for it. Which scheme does ReLU hurt, and why do
#    inputs look more and more alike (`signal.correlation` in the report) even where the size is kept?
# 2. Train the `own` start by Adam, which makes the steps of all weights alike, however small their gradients are. Is
#    that enough? (Its `eps` is 1e-8. How large are these gradients?)
# 3. Repair with `repair_params={"spread": 0.0}`, as in the paper. What becomes of the effective density?
# 4. How far does SμPar reach in width? Search at width 64, keep the learning rate, and train at 512.
