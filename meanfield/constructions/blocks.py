"""Blocks that follow a field: partitions of time, meshes of space, and the nodal values of every block.

averaged      F_i^k = int_{I_k} f(s, x_i) ds
pointwise     F_i^k = |I_k| f(t_k, x_i)
runge_kutta   F_i^{k,j} = |I_k| f(t_k + c_j |I_k|, x_i) for every stage j
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import check_memory, finite_array, one_of, positive_int
from meanfield.constructions.flow_network import FlowNetwork
from meanfield.constructions.problem import FlowProblem
from meanfield.errors import ConfigError
from meanfield.kuhn import KuhnMesh
from meanfield.schemes import EULER, Scheme

Array = NDArray[np.float64]

KINDS = ("averaged", "pointwise", "runge_kutta")
PARTITIONS = ("uniform", "equidistributed")
# Cells an axis, at most, of the mesh on which sizes of the field are looked at to cut time.
_COARSE = 32


@dataclass(frozen=True, eq=False)
class Recipe:
    """How blocks are made from a field.

    Parameters
    ----------
    kind
        ``"averaged"``, ``"pointwise"`` or ``"runge_kutta"``.
    scheme
        Tableau of Runge-Kutta blocks.
    lo, hi
        Box of the network, (d,); the mesh reaches at least as far.
    partition
        ``"uniform"``, ``"equidistributed"``: blocks of equal int (Lip f + sup |f|), or increasing times from 0 to T.
    """

    kind: str
    scheme: Scheme
    lo: Array
    hi: Array
    partition: str | Array = "uniform"

    def __post_init__(self) -> None:
        one_of("time", self.kind, KINDS)
        if isinstance(self.partition, str):
            one_of("partition", self.partition, PARTITIONS)

    @property
    def order(self) -> int:
        """Order in the length of smooth blocks."""
        return self.tableau.order

    @property
    def tableau(self) -> Scheme:
        """Tableau of the blocks, one stage unless they compose a Runge-Kutta step."""
        return self.scheme if self.kind == "runge_kutta" else EULER

    def mesh(self, problem: FlowProblem, cells: Any) -> KuhnMesh:
        """Mesh of `cells` cells across K along every axis, continued with the same width to the box of the network."""
        lo, hi = problem.box
        across = KuhnMesh(lo, hi, cells)
        h = across.width
        below = np.ceil((lo - self.lo) / h - 1e-9).astype(np.int64)
        above = np.ceil((self.hi - hi) / h - 1e-9).astype(np.int64)
        return KuhnMesh(lo - below * h, hi + above * h, across.cells + below + above)

    def times(self, problem: FlowProblem, n_blocks: int) -> Array:
        """Times between blocks, (n + 1,)."""
        if not isinstance(self.partition, str):
            given = finite_array("partition", self.partition, shape=(n_blocks + 1,))
            if given[0] != 0.0 or given[-1] != problem.T or not (np.diff(given) > 0.0).all():
                raise ConfigError(
                    f"partition must increase from 0 to T = {problem.T:g}, got {given[0]:g} .. {given[-1]:g}"
                )
            return given
        if self.partition == "uniform" or problem.autonomous:
            return np.linspace(0.0, problem.T, n_blocks + 1)
        coarse = KuhnMesh(self.lo, self.hi, np.array([_COARSE if problem.dim < 3 else 6]))
        pieces = problem.sizes_over_time(coarse)
        mass = pieces.parts[:, 0] + pieces.parts[:, 1]
        total = np.concatenate([[0.0], np.cumsum(mass)])
        found = np.interp(np.linspace(0.0, total[-1], n_blocks + 1), total, pieces.ends)
        found[0], found[-1] = 0.0, problem.T
        return np.asarray(found)

    def network(self, problem: FlowProblem, n_blocks: int, cells: Any) -> FlowNetwork:
        """Network of n blocks on a mesh.

        Raises
        ------
        ConfigError
            For a field that is not finite on the mesh, or counts out of range.
        NumericalError
            If a time integral does not meet its tolerance.
        ResourceError
            If the nodal values would not fit into memory, before any is computed.
        """
        n = positive_int("n_blocks", n_blocks)
        mesh = self.mesh(problem, cells)
        self.check_memory(problem, n, mesh)
        times, nodes = self.times(problem, n), mesh.nodes()
        tables, order = self._tables(problem, times, nodes)
        scheme = self.tableau
        s = scheme.n_stages
        return FlowNetwork(mesh, tables, order, times, scheme.a[:s, :s], scheme.b[:s])

    def check_memory(self, problem: FlowProblem, n_blocks: int, mesh: KuhnMesh) -> None:
        """Refuse what would not fit: nodal values, what computes them, and the states that are compared."""
        stages = self.tableau.n_stages
        tables = 1 if problem.autonomous else n_blocks * stages
        bytes_needed = 8 * mesh.dim * mesh.n_nodes * (2 * tables + 30) + 1024 * mesh.dim * n_blocks
        check_memory(f"a network of {n_blocks} blocks on {mesh.n_nodes} nodes", bytes_needed)

    def _tables(self, problem: FlowProblem, times: Array, nodes: Array) -> tuple[Array, NDArray[np.int64]]:
        """Nodal values (K, nodes, d), and which of them every stage of every block takes."""
        n, c = len(times) - 1, self.tableau.c[: self.tableau.n_stages]
        lengths = np.diff(times)
        if problem.autonomous and self._uniform(lengths):
            table = (problem.T / n) * problem.value(0.0, nodes).T
            return np.ascontiguousarray(table)[None], np.zeros((n, len(c)), dtype=np.int64)
        if self.kind == "averaged":
            tables = np.empty((n, nodes.shape[1], problem.dim))
            for k in range(n):
                tables[k] = problem.integral(float(times[k]), float(times[k + 1]), nodes, 1.0 / n).T
            return tables, np.arange(n)[:, None]
        made: dict[tuple[float, float], int] = {}
        parts: list[Array] = []
        order = np.empty((n, len(c)), dtype=np.int64)
        for k, h in enumerate(lengths.tolist()):
            for i, fraction in enumerate(c.tolist()):
                key = (times[k + 1] if fraction == 1.0 else times[k] + fraction * h), h
                if key not in made:
                    made[key] = len(parts)
                    parts.append(h * problem.value(float(key[0]), nodes).T)
                order[k, i] = made[key]
        return np.array(parts), order

    def _uniform(self, lengths: Array) -> bool:
        return float(np.ptp(lengths)) <= 1e-12 * float(lengths.sum())
