"""What tells the run of one experiment from the run of another: settings, data, code and values, and behaviour."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lottery.data.parts import Parts, Tensors
from lottery.runs.identity import Identity
from lottery.search.frame.frame import Frame
from lottery.search.frame.seeds import job_seed
from lottery.settings.config import SearchConfig
from lottery.settings.functions import functions_in
from lottery.state.behaviour import agree
from lottery.state.identity import identify
from lottery.trainers import Ask
from pruning.criteria import Criterion
from pruning.errors import NothingToPrune
from pruning.jobs import Budget, Job
from pruning.uses.uses import NOT_LOOKED_AT, Uses

FORMAT = 2
# The seed of the network and of the order of data that tell experiments apart: whichever replicates are asked for.
FIRST_SEED = 0


def identity_of(frame: Frame, criterion: Criterion | None = None) -> Identity:
    """Return the identity of a search. Data and code are hashed, and the network is run, but nothing is trained.

    Seeds are replicates of one experiment, where another seed gives another network. They have no part in it there.

    Args:
        frame: the frame of the search.
        criterion: the criterion of the search; None for a frame alone.
    """
    config, ask, setup = frame.config, frame.ask, frame.setup
    source, parts = ask.source, ask.parts
    settings = {key: value for key, value in frame.facts.config.items() if key not in ("seed", "replicates")}
    seed = FIRST_SEED if source.varies else config.seed
    settings |= {} if source.varies else {"seed": seed}
    settings |= _found_by_use(config, ask, frame.uses)
    settings |= {"identity": FORMAT, "device": setup.device, "objective": setup.objective}
    if criterion is not None:
        settings["criterion"] = f"{criterion.name} {identify(criterion.score)}"
    data_fingerprint = _hashing(ask)
    if isinstance(parts, Parts) and parts.forward is not None:
        settings["forward"] = identify(parts.forward)
    settings |= {f"{name}_code": identify(function) for name, function in functions_in(ask.config).items()}
    job = Job(frame.initial[seed], frame.dense[seed], job_seed(seed, 0), Budget(0, 0))
    unsure = [*parts.unsure] if isinstance(parts, Parts) else []
    behaviour = {} if unsure else setup.behave(job)
    if not unsure and not agree(behaviour, setup.behave(job)):
        unsure.append("the model, the loss or the metric gives something else each time it is called")
    fingerprint = source.fingerprint(seed)
    if fingerprint != source.fingerprint(seed):
        fingerprint = "?"
        unsure.append("the model's maker gives another network each time it is called with the same seed")
    settings |= {"model_fingerprint": fingerprint, "data_fingerprint": data_fingerprint()}
    return Identity(settings, {} if unsure else behaviour, tuple(unsure))


def _hashing(ask: Ask) -> Callable[[], str]:
    """Return what waits for a hash of the data: values in memory are hashed beside what else is done.

    A loader is read at once, before anything else: to read it takes random numbers.
    """
    parts = ask.parts
    if not isinstance(parts, Parts) or not all(isinstance(part, Tensors | None) for part in parts.each):
        found = parts.fingerprint()
        return lambda: found
    pool = ThreadPoolExecutor(max_workers=1)
    hashing = pool.submit(parts.fingerprint)
    pool.shutdown(wait=False)
    return hashing.result


def _found_by_use(config: SearchConfig, ask: Ask, uses: Uses) -> dict[str, list[str]]:
    """Return what is prunable where it is not what kinds of layers or names alone would say.

    Runs of such networks that were made before use was looked at covered less: they are others.
    """
    found, otherwise = (_prunable(config, ask, each) for each in (uses, NOT_LOOKED_AT))
    return {} if found == otherwise else {"found_by_use": found}


def _prunable(config: SearchConfig, ask: Ask, uses: Uses) -> list[str]:
    try:
        return list(ask.source.prunable(ask.seed, config.prunable, config.skip, uses))
    except NothingToPrune:
        return []
