"""Models without their compiled path, for the generic loop over `rate`."""

from __future__ import annotations

from typing import Any


class Stages:
    """All of a model that the time loop needs but `advance`."""

    def __init__(self, model: Any) -> None:
        names = "shape breakpoints rate fields axes schemes check step_limits certain check_steps"
        for name in names.split():
            setattr(self, name, getattr(model, name))
