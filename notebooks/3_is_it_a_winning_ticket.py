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
# # Is it a winning ticket? Controls and statistics
#
# A sparse network that trains well proves little. Perhaps any sparse network of that size would have trained as well;
# perhaps only the number of weights in each layer matters; perhaps the differences are those between one seed and the
# next. This notebook takes one search and tries to talk us out of its result:
#
# 1. **controls** that break one thing about the tickets and keep everything else;
# 2. **statistics** that say how much of a difference is left when seeds are paired, and how sure we can be;
# 3. **other criteria** at the same densities, some of which never look at trained weights.
#
# Everything runs on the embedded digits in a minute or two. The same calls make the larger tables in `results/`.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from scipy import stats

from lottery import (
    ablate,
    ablation_figure,
    ablation_table,
    bootstrap,
    by_seed,
    comparison_figure,
    difference_table,
    find_ticket,
    holm,
    interquartile_mean,
    paired_difference,
    paired_t_p,
    pairs,
    sign_flip_p,
)

# %% [markdown]
# ## A search worth doubting
#
# Five replicates: five initializations, each with its own data order. Every level removes 49 % of the surviving
# weights, down to under 2 % of the network. Nothing here is tuned.

# %% tags=["parameters"]
STEPS = 300
REPLICATES = 5
TOLERANCE = 0.02

# %%
settings = {"levels": 6, "prune_rate": 0.49, "replicates": REPLICATES, "steps": STEPS, "tolerance": TOLERANCE}
ticket = find_ticket("mlp", "digits", **settings)
search = ticket.search
print(ticket)

# %% [markdown]
# ## Controls
#
# Each control starts from the tickets of a level and changes one thing:
#
# | control | what it breaks | if it does as well as the ticket, then … |
# |---|---|---|
# | `reinit` | the initial weights are drawn afresh | the initialization does not matter |
# | `random-layers` | the mask is random, with the ticket's density in every layer | only the layer densities matter |
# | `shuffle-units` | the mask's rows and columns are permuted | which pixels and units survive does not matter |
# | `sign-reinit` | the magnitudes are drawn afresh, the signs are kept | of the initialization, the signs are enough |
#
# The data order is the ticket's own, so that a difference is due to the control and to nothing else.

# %%
kinds = ["reinit", "random-layers", "shuffle-units", "sign-reinit"]
controls = ablate(search.run, kinds, levels=[2, 4, 6])
print(ablation_table(search, controls))

# %%
display(ablation_figure(search, controls))

# %% [markdown]
# Read the table from the right. A difference to the ticket comes with a 95 % interval: where it holds 0, these five
# replicates do not tell control and ticket apart, and saying "the ticket is better" would be a wish.
#
# With a quarter of the weights left everything is within two points. At the sparsest level the controls fall apart,
# and *how* they do tells what the ticket is made of:
#
# - Random masks with the ticket's layer densities, and masks with permuted units, do worst: **which** weights stay
#   matters. (The pixels at the border of the digits are always black; a mask that spends weights on them cannot win.)
# - New weights under the ticket's own mask lose a lot too, so the mask alone is not the ticket.
# - New magnitudes with the ticket's **signs** lose next to nothing. Zhou et al. (2019) found the same: of the
#   initialization, the signs are what the mask needs.
#
# None of this could be seen in the accuracy curve, and it is why a ticket should not be reported without these rows.

# %% [markdown]
# ## Five seeds are few: what the numbers can bear
#
# Take level 2 and compare the ticket with `reinit`. Both were trained on five seeds. Seeds differ among themselves,
# but the difference *within* a seed is what we want to know, so we pair them.

# %%
reinit = next(each for each in controls if each.kind == "reinit").levels[0]
ours, theirs = pairs(by_seed(search.levels[2]), by_seed(reinit))

for name, values in (("ticket", ours), ("reinit", theirs)):
    print(f"{name:7s}", np.round(values, 3), "mean", round(float(np.mean(values)), 4))
print("\npaired difference, Student's t: ", paired_difference(ours, theirs))
print("the same, bootstrap:            ", bootstrap(np.subtract(ours, theirs)))
print("interquartile mean of the ticket:", interquartile_mean(ours))
print(f"\np by the t test: {paired_t_p(ours, theirs):.4f}; by flipping signs: {sign_flip_p(ours, theirs):.3f}")

# %% [markdown]
# Two honest remarks. Flipping the signs of the differences assumes nothing at all, and with five pairs it can never
# give less than 2 / 2⁵ = 0.06: **five replicates alone cannot reach p < 0.05 without assuming a distribution.** And
# whoever looks at four controls on three levels has twelve chances of a lucky one; Holm's correction charges for them:

# %%
tested = []
for control in controls:
    for level in control.levels:
        a, b = pairs(by_seed(search.levels[level.level]), by_seed(level))
        tested.append((control.kind, level.level, paired_difference(a, b), paired_t_p(a, b)))
adjusted = holm([p for *_, p in tested])
for (kind, level, estimate, p), corrected in zip(tested, adjusted, strict=True):
    verdict = "ticket better" if corrected < 0.05 and estimate.value > 0 else "not told apart"
    print(f"level {level}  {kind:14s} {100 * estimate.value:+6.2f} pp   p = {p:.4f}   Holm {corrected:.4f}   {verdict}")

# %% [markdown]
# How many seeds would it take to tell `sign-reinit` from the ticket on that level, if the difference is real? The
# width of the interval falls with the square root of n, and the spread of the differences is known by now.

# %%
signs = next(each for each in controls if each.kind == "sign-reinit").levels[0]
found = np.subtract(*pairs(by_seed(search.levels[2]), by_seed(signs)))
spread = np.std(found, ddof=1)
counts = np.arange(3, 31)
half = stats.t.ppf(0.975, counts - 1) * spread / np.sqrt(counts)
figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axes.plot(counts, 100 * half, "o-", ms=3)
axes.axhline(100 * abs(np.mean(found)), ls="--", color="#c8442c", label="the difference we saw")
axes.set_xlabel("replicates")
axes.set_ylabel("half width of the 95 % interval (pp)")
axes.legend(frameon=False)
axes.grid(alpha=0.25)
plt.show()

# %% [markdown]
# ## Other ways to choose, at the same densities
#
# Magnitude looks at trained weights. SNIP, GraSP and SynFlow choose at initialization, before any training; `random`
# chooses nothing. Under the same protocol (same seeds, same splits, same counts) they can be compared level by level.

# %%
searches = [search]
for criterion in ("snip", "grasp", "synflow", "random"):
    searches.append(find_ticket("mlp", "digits", **{**settings, "tolerance": 1.0}, criterion=criterion).search)
display(comparison_figure(searches))

# %%
print(difference_table(searches))

# %% [markdown]
# What to take away:
#
# - Criteria that choose **at initialization** sit between magnitude after training and chance; SynFlow, which never
#   sees a label, is the best of them here. "Missing the mark" (Frankle et al. 2021) says the same of larger networks.
# - A criterion can only be judged at matched density, with paired seeds and an interval. All of that is one call here:
#   `lottery show RUN RUN …` prints these tables for runs on disk.
# - If your own criterion beats `magnitude` in this table, run its controls before you believe it.
