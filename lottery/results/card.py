"""A ticket's card: the `README.md` that people find beside the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from es.jax_models import kinds as jax_kinds
from pruning.disk.plain import plain

_IN_JAX = {
    jax_kinds.LINEN: ("module", "variables"),
    jax_kinds.LINEN_WITH_VARIABLES: ("(variables, module)", "variables, module"),
    jax_kinds.NNX: ("module", "module"),
    jax_kinds.EQUINOX: ("module", "module"),
    jax_kinds.EQUINOX_WITH_STATE: ("(module, state)", "module, state"),
    jax_kinds.EQUINOX_PARTITION: ("(params, static)", "params, static"),
    jax_kinds.TRANSFORMED: ("transformed", "params"),
    jax_kinds.TRAIN_STATE: ("state", "state"),
}


def card(record: Mapping[str, Any]) -> str:
    """Return the card of a ticket from its `config.json`."""
    metric = plain(record["metric"]["name"])
    dense = record.get("dense") or {}
    in_jax = record.get("framework") == "jax"
    lines = [
        "---",
        f"library_name: {'jax' if in_jax else 'pytorch'}",
        "tags: [lottery-ticket, pruning, sparse]",
        "---",
        "",
        f"# Lottery ticket: {_said(record, 'model')} on {_said(record, 'data')}, density {record['density']:.4g}",
        "",
        f"{record['kept']:,} of {record['prunable']:,} prunable weights survive "
        f"(sparsity {record['sparsity']:.4g}, level {record['level']}, seed {record['seed']}).",
        "",
        f"| {metric} | this ticket | dense, same seed |",
        "|---|---|---|",
        f"| validation | {_number(record['validation'])} | {_number(dense.get('validation'))} |",
        f"| test | {_number(record['test'])} | {_number(dense.get('test'))} |",
        "",
        f"Found with criterion `{_said(record, 'criterion')}`, scope `{_said(record, 'scope')}`, "
        f"rewind `{_said(record, 'rewind')}`, trainer `{_said(record, 'trainer')}`. "
        f"Measured at: {_said(record, 'measure_at')}.",
        f"The trained weights are those {plain(delivered_text(record))}.",
    ]
    if record.get("diverged"):
        lines += ["", f"**This training diverged: {_said(record, 'diverged')}.**"]
    lines += [
        "",
        "| tensor | density |",
        "|---|---|",
        *(f"| `{plain(name)}` | {density:.4g} |" for name, density in record["layers"].items()),
        "",
        "## Files",
        "",
        "- `mask.safetensors`: which weights survive (BOOL, 1 keeps), readable with safetensors alone",
        "- `model.safetensors`: the full state at the rewind point, not masked",
        "- `trained.safetensors`: the trained, masked weights that the numbers above are of",
        "- `last.safetensors`, `best.safetensors`, where they are others: the weights of the last step, and those at",
        "  the smallest validation loss; `std.safetensors`, where there is one: the standard deviation of every weight",
        "- `config.json`, `history.json`: how it was found, and every evaluation",
        "",
        "## Load",
        "",
        "```python",
        "from lottery import Ticket",
        "",
        'ticket = Ticket.load("this-folder")',
        *(_loaded_in_jax(record) if in_jax else _loaded_in_torch(record)),
        "```",
        "",
    ]
    return "\n".join(lines)


def _loaded_in_torch(record: Mapping[str, Any]) -> list[str]:
    # A registered model is made again by its name; any other is handed over.
    model = "model" if ":" in record.get("given", {}).get("model", ":") else ""
    return [
        f"network = ticket.rewound({model})   # masked, at its rewind weights; stays masked while it trains",
        f"network = ticket.trained({model})   # the same, trained",
    ]


def _loaded_in_jax(record: Mapping[str, Any]) -> list[str]:
    """Say what goes in and what comes out, by the kind of model (`es.jax_models.kinds`)."""
    given, found = _IN_JAX.get(record.get("model_kind", ""), ("(params, apply)", "params, apply"))
    return [
        f"{found} = ticket.rewound({given})   # masked, at its rewind weights",
        f"{found} = ticket.trained({given})   # the same, trained",
        "",
        "from pruning.pytrees import apply_mask",
        "",
        "tree = apply_mask(tree, ticket.mask)   # after each step of a loop of your own: removed weights stay 0",
    ]


def _said(record: Mapping[str, Any], key: str) -> str:
    return plain(record.get(key, "unknown"))


def delivered_text(record: Mapping[str, Any]) -> str:
    """Say at which step the trained weights of a ticket were taken.

    >>> delivered_text({"delivered": {"at": "early-stop", "step": 350}})
    'of early-stop step 350'
    """
    delivered = record.get("delivered")
    if delivered is None:
        # A ticket from before they were kept reports the early-stop step, and holds the last one.
        early = record.get("measure_at") == "early-stop" and not record.get("diverged")
        return "of the last step, and the numbers are of the early-stop step" if early else "of the last step"
    return (
        f"of the last step, {delivered['step']}"
        if delivered["at"] == "final"
        else f"of {delivered['at']} step {delivered['step']}"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
