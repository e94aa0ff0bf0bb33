"""No data: a loop of the caller's own brings its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from pruning.errors import BadValue


@dataclass(frozen=True)
class Unseen:
    """Takes the place of data where the caller's own functions train and evaluate, and only they see data."""

    name: str = "own-data"

    @property
    def default_model(self) -> NoReturn:
        """There is none."""
        raise BadValue("without data there is no model by default: say which")

    @property
    def input_shape(self) -> NoReturn:
        """It is not known."""
        raise BadValue("no data was given, which says how large a model by name is: give the model itself")

    @property
    def outputs(self) -> NoReturn:
        """They are not known."""
        raise BadValue("no data was given, which says how large a model by name is: give the model itself")

    @property
    def environment(self) -> NoReturn:
        """There is none."""
        raise BadValue("no data and no environment was given")

    def few(self, count: int) -> NoReturn:
        """There are no examples."""
        raise BadValue("no data was given, and this model is made for examples of it")

    def fingerprint(self) -> str:
        """Return what tells data apart: here it is in the functions."""
        return self.name
