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
# # Why it works: connectivity, curvature, masks
#
# A ticket is a point in the space of weights (where it starts) and a subspace (what its mask leaves). This notebook
# looks at the landscape around both:
#
# - **Connectivity.** Do two trainings of the same ticket end in the same valley? Do tickets of neighbouring levels?
# - **Curvature.** How sharp is the place where training ends, and does it change with sparsity?
# - **Masks.** Do different replicates, or different trainers, choose the same weights?
#
# We look at the same network trained in two ways: by gradient descent and by an evolution strategy. Every picture
# comes from one call that returns plain arrays, and all of it exists on the command line: `lottery show RUN --analysis
# NAME`, `lottery connect`, `lottery instability`.

# %%
# %matplotlib inline
from IPython.display import display
from matplotlib.figure import Figure

from lottery import (
    analyze,
    connect,
    connections_figure,
    connections_table,
    find_ticket,
    instability,
    overlap_between,
    stability_figure,
    stability_table,
    study,
)


def show(findings, size=(7.5, 4.0)):
    """Print what an analysis says and draw its figure."""
    print(findings.text)
    figure = Figure(figsize=size, layout="constrained", dpi=75)
    findings.draw(figure)
    display(figure)


# %% [markdown]
# ## Two searches
#
# The same network, data, split and seeds; three replicates each. Gradient descent trains 300 steps a level, evolution
# 300 generations.

# %% tags=["parameters"]
STEPS = 300
REPLICATES = 3
HALVINGS = 4
GENERATIONS = 300

# %%
common = {"levels": HALVINGS, "prune_rate": 0.5, "replicates": REPLICATES, "tolerance": 1.0}
by_gradient = find_ticket("mlp", "digits", **common, steps=STEPS).search
by_evolution = find_ticket("mlp", "digits", **common, trainer="es", generations=GENERATIONS).search
for name, search in (("gradient descent", by_gradient), ("evolution", by_evolution)):
    print(name, [f"{100 * level.density:.0f} %: {100 * level.test:.1f}" for level in search.levels])

# %% [markdown]
# ## Does noise decide where training ends?
#
# Take one ticket, train it several times from the *same* weights in another order of the data, and walk along the
# straight line between the ends. If the error does not rise on the way (a barrier under two percentage points), the
# outcome was settled before the noise could matter: the network is **stable** (Frankle et al. 2020). They found that
# sparse tickets of larger networks only work where they are stable, which is why those must be rewound to a step after
# the first.

# %%
stability = instability(by_gradient.run, levels=[0, HALVINGS // 2, HALVINGS], copies=3)
print(stability_table(stability))
display(stability_figure(stability))

# %% [markdown]
# Here everything is stable from the very first step: on a small network and easy data there is one valley to end in,
# and the order of the data does not matter. That is why these tickets can be rewound to step 0.
#
# ## Are neighbouring levels in one valley?
#
# A ticket is trained again from its rewind point, with a fifth or more of its weights gone. Paul et al. (2023) report
# for gradient descent that successive levels stay connected as long as tickets match. Lange and Sprekeler (2023)
# report that evolution does *not* preserve this: its levels end in different, flat places.

# %%
show(analyze(by_gradient.run, "connectivity"))

# %%
show(analyze(by_evolution.run, "connectivity"))

# %% [markdown]
# Two observations, one of them not what the evolution paper reports. Successive levels are connected for gradient
# descent *and* for evolution (the barrier to the next level is below two points nearly everywhere): after 300
# generations from the same initialization, a network this small has not gone far. The paper's networks trained ten
# times longer. Between replicates there is a wall of 30 to 50 points for both: they have different initializations,
# and nothing aligns their units.
#
# The two trainers themselves, from one initialization: the dense network of seed 0, once trained by gradients and once
# evolved, and the line between the two.

# %%
ends = [search.levels[0].replicates[0].path for search in (by_gradient, by_evolution)]
connections = connect(ends)
print(connections_table(connections))
display(connections_figure(connections))

# %% [markdown]
# ## How sharp is the place?
#
# The largest eigenvalue of the Hessian (by Lanczos iteration), its trace (by Hutchinson's estimator, with its standard
# error), and, as in the evolution paper, what random perturbations of the weights do to the loss.

# %%
show(analyze(by_gradient.run, "sharpness"), size=(9.5, 3.6))

# %%
show(analyze(by_evolution.run, "sharpness"), size=(9.5, 3.6))

# %% [markdown]
# Here, for both trainers, curvature *falls* with sparsity. Part of that is arithmetic: fewer weights are left to move
# along. The perturbations in the right panel touch survivors only, too.
#
# ## Do they choose the same weights?
#
# Overlap means little without chance: two random masks that keep half of everything agree on a third of their union.
# And two masks that merely prefer the same *layers* agree more than that. Both kinds of chance are drawn.

# %%
show(analyze(by_gradient.run, "mask-overlap"))

# %% [markdown]
# Between the two trainers, with the same initialization and with different ones:

# %%
show(overlap_between([study(by_gradient.run), study(by_evolution.run)]))

# %% [markdown]
# This is the most telling picture of the notebook. Gradient descent and evolution, from the **same initialization**,
# agree on their masks twenty standard deviations above chance; the same trainer from **different initializations**
# agrees no more than chance would. What a ticket keeps is decided by where it starts, much more than by how it is
# trained. (It is also why a mask can be handed from one trainer to the other: `lottery transfer`.)
#
# ## Do they compute the same?
#
# CKA compares what layers compute, whatever basis they use: 1 is the same up to rotation and scale.

# %%
show(analyze(by_gradient.run, "cka"), size=(9.5, 4.0))

# %% [markdown]
# ## How many of the weights do anything?
#
# A surviving weight that no path from an input to an output uses might as well be gone. At high sparsity the
# *effective* density is below the nominal one, more so the less a mask cares for paths.

# %%
show(analyze(by_gradient.run, "effective-sparsity"))

# %% [markdown]
# ## What to look at next
#
# - Your own run: `lottery list analyses`, then `lottery show RUN --analysis NAME`.
# - On larger networks, rewind to a step after the first (`rewind="500"`) and repeat the instability analysis: the step
#   from which tickets are stable is the step from which they match.
# - `results/` holds the same analyses on Fashion-MNIST with intervals over five replicates.
