"""Verdicts: what theory predicts, what was measured, and whether the two agree.

The tolerance of a verdict is fixed before the run, with its reason. Only ``fails``
makes an experiment fail; ``refuted`` says that the mathematics as stated is wrong and
``not_tested`` that this size cannot decide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from meanfield._checks import finite_float, one_of
from meanfield.errors import ConfigError

STATUSES = ("holds", "fails", "refuted", "not_tested")


@dataclass(frozen=True)
class Verdict:
    """One claim and how it fared.

    Parameters
    ----------
    claim
        The claim in a line.
    predicted, measured
        Figures from the parameters and from the run; NaN where there is none.
    tolerance
        Largest difference allowed, in the units of `predicted`.
    status
        holds, fails, refuted or not_tested.
    reason
        Why the tolerance is what it is, or why the claim is refuted or not tested.
    source
        The theorem, or "consequence ...".

    Raises
    ------
    ConfigError
        For an unknown status or an empty claim or source.
    """

    claim: str
    predicted: float
    measured: float
    tolerance: float
    status: str
    reason: str
    source: str

    def __post_init__(self) -> None:
        one_of("status", self.status, STATUSES)
        if not self.claim or not self.source:
            raise ConfigError("a verdict needs a claim and a source")

    @classmethod
    def near(
        cls,
        claim: str,
        predicted: float,
        measured: float,
        *,
        tolerance: float,
        reason: str,
        source: str,
        relative: bool = True,
    ) -> Verdict:
        """Hold if |measured - predicted| <= tolerance (times |predicted| if relative); NaN never holds."""
        predicted = finite_float("predicted", predicted)
        width = finite_float("tolerance", tolerance, above=0.0) * (abs(predicted) if relative else 1.0)
        holds = abs(float(measured) - predicted) <= width
        return cls(claim, predicted, float(measured), width, _judged(holds), reason, source)

    @classmethod
    def at_most(cls, claim: str, bound: float, measured: float, *, reason: str, source: str) -> Verdict:
        """Hold if measured <= bound; NaN never holds."""
        bound = finite_float("bound", bound)
        return cls(claim, bound, float(measured), 0.0, _judged(float(measured) <= bound), reason, source)

    @classmethod
    def at_least(cls, claim: str, bound: float, measured: float, *, reason: str, source: str) -> Verdict:
        """Hold if measured >= bound; NaN never holds."""
        bound = finite_float("bound", bound)
        return cls(claim, bound, float(measured), 0.0, _judged(float(measured) >= bound), reason, source)

    @classmethod
    def not_tested(cls, claim: str, reason: str, source: str) -> Verdict:
        """Say that a claim cannot be decided at this size, and why."""
        return cls(claim, math.nan, math.nan, math.nan, "not_tested", reason, source)

    def row(self) -> dict[str, Any]:
        """Fields as stored in a run file; `passed` is 1 unless the status is fails."""
        return asdict(self) | {"passed": int(self.status != "fails")}


def _judged(holds: bool) -> str:
    return "holds" if holds else "fails"


def exit_code(verdicts: Iterable[Verdict]) -> int:
    """0, or 3 if a verdict fails."""
    return 3 if any(v.status == "fails" for v in verdicts) else 0


def table(verdicts: Iterable[Verdict]) -> Any:
    """Return a rich table of verdicts, followed by the reasons of all that do not simply hold."""
    from rich.console import Group  # noqa: PLC0415  (only where something is printed)
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    colours = {"holds": "green", "fails": "bold red", "refuted": "yellow", "not_tested": "dim"}
    grid = Table(title="Verdicts", title_justify="left", header_style="bold")
    grid.add_column("claim", ratio=1)
    for name in ("predicted", "measured", "tolerance"):
        grid.add_column(name, justify="right", no_wrap=True)
    grid.add_column("verdict", no_wrap=True)
    remarks = []
    for v in verdicts:
        figures = [f"{x:.6g}" if math.isfinite(x) else "-" for x in (v.predicted, v.measured)]
        bound = f"{v.tolerance:.2g}" if v.tolerance > 0 else "bound"
        grid.add_row(Text(v.claim), *figures, bound, Text(v.status.replace("_", " "), colours[v.status]))
        if v.status != "holds":
            remarks.append(Text(f"{v.status.replace('_', ' ')}: {v.claim}: {v.reason} ({v.source})", colours[v.status]))
    return Group(grid, *remarks)
