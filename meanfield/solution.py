"""What a time integration returns: times, states, probes, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from meanfield.errors import NumericalError

Array = NDArray[np.float64]


class Status(StrEnum):
    """How an integration ended."""

    FINISHED = "finished"
    EVENT = "event"
    INTERRUPTED = "interrupted"
    MAX_STEPS = "max_steps"
    STEP_TOO_SMALL = "step_too_small"
    NONFINITE = "nonfinite"
    NOT_CONVERGED = "not_converged"


_GOOD = (Status.FINISHED, Status.EVENT)


@dataclass(frozen=True, eq=False)
class Solution:
    """Result of `integrate`.

    Attributes
    ----------
    t
        Times of the saved frames, (K,).
    fields
        Saved fields by name, each (K, ...).
    probes
        For each probe its times and its values, (J,) and (J, ...).
    final
        Last good state, of the model's shape, and `final_time`.
    status, message
        How the run ended, in a word and in a sentence.
    stats
        Counts: ``n_steps``, ``n_rejected``, ``n_rates``.
    """

    t: Array
    fields: Mapping[str, Array]
    probes: Mapping[str, tuple[Array, Array]]
    final: Array
    final_time: float
    status: Status
    message: str
    stats: Mapping[str, int] = field(default_factory=dict)

    @property
    def y(self) -> Array:
        """Saved states, (K, *shape): the only field, or the packed state where there are several."""
        if len(self.fields) == 1:
            return next(iter(self.fields.values()))
        return self.fields["state"]

    def raise_for_status(self) -> Solution:
        """Return the solution if it finished or met its event, else raise `NumericalError`."""
        if self.status not in _GOOD:
            raise NumericalError(self.message)
        return self
