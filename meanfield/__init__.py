"""Width and depth limits of residual networks.

    >>> import numpy as np, meanfield as mf
    >>> grid = mf.Grid.circle(64)
    >>> model = mf.SpaceTimeNetwork(mf.Dense(grid, lambda x, y: -np.cos(2 * np.pi * (x - y))), "tanh")
    >>> solution = mf.integrate(model, np.sin(2 * np.pi * grid.nodes), (0.0, 5.0), dt=0.05)

Names are loaded when first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from meanfield._version import __version__ as __version__

_HOMES = {
    "errors": (
        "ConfigError",
        "CorruptFileError",
        "FileFormatError",
        "MeanfieldError",
        "NumericalError",
        "OutputError",
        "ResourceError",
        "ResumeMismatchError",
        "RunLockedError",
        "UnsafeFileError",
    ),
    "activations": ("Activation", "activation"),
    "grids": ("Grid",),
    "transfer": ("Transfer", "endpoint_grid", "growth", "nodal_grid", "wide_narrow_wide"),
    "meshes": ("Equidistribution", "adapted_nodes"),
    "laws": ("Law",),
    "cells": ("Cells",),
    "velocities": ("Velocity",),
    "operators.base": ("IntegralOperator",),
    "operators.dense": ("Dense",),
    "operators.separable": ("Separable",),
    "operators.convolution": ("Convolution",),
    "operators.radial": ("RadialKernel",),
    "operators.onthefly": ("OnTheFly",),
    "operators.hierarchical": ("Hierarchical",),
    "operators.combined": ("Product", "Sum"),
    "operators.masked": ("Masked",),
    "operators.choice": ("choose_operator",),
    "operators.path": ("OperatorPath",),
    "controls": ("Controls",),
    "schemes": ("Scheme",),
    "models.spacetime": ("SpaceTimeNetwork",),
    "models.residual": ("ResidualNetwork",),
    "models.continuity": ("ContinuityEquation",),
    "models.lagrangian": ("LagrangianCells",),
    "models.fokkerplanck": ("FokkerPlanck",),
    "models.deep": ("DeepMeanField",),
    "models.neurons": ("MeanFieldNeurons",),
    "models.neurondensity": ("NeuronDensity",),
    "losses": ("CrossEntropy", "Logistic", "LpDistance", "Readout", "Squared"),
    "regularizers": ("DepthH1", "DepthL2", "DepthVariation", "LabelSmoothness"),
    "weights": ("read_weights",),
    "diagnostics.roughness": ("forward_gap", "roughness"),
    "diagnostics.depth_distance": ("tl2_distance",),
    "models.function": ("FunctionModel",),
    "models.moving": ("MovingGridNetwork",),
    "models.variable": ("VariableWidthNetwork", "prune"),
    "probes": ("Probe",),
    "solution": ("Solution", "Status"),
    "integration": ("integrate", "steps"),
    "export": ("FiniteResNet", "load_npz", "to_layers"),
    "storage.run": ("create_run", "open_run"),
    "diagnostics.rates": ("fit_rate",),
    "diagnostics.spectrum": ("spectrum",),
    "diagnostics.newton": ("steady_state",),
    "diagnostics.decay": ("classify_decay",),
    "diagnostics.laws_of_rates": ("classify_law",),
    "diagnostics.equilibrium": ("equilibrium",),
    "diagnostics.wasserstein": ("wasserstein",),
    "learning.adjoint": ("adjoint",),
    "learning.training": ("Training",),
    "learning.quasi_newton": ("minimise",),
    "learning.gradient_flow": ("GradientFlow",),
    "learning.pontryagin": ("pmp_residual",),
    "learning.successive_approximations": ("forward_backward_sweep", "successive_approximations"),
    "learning.residual_form": ("residual_form",),
    "learning.multilevel": ("multilevel",),
    "learning.boundary_value": ("extremal",),
    "learning.minimal_norm": ("minimal_norm",),
    "learning.continuation": ("continuation",),
    "learning.control_problems": ("QuadraticControl", "SampledControl"),
    "learning.hjb": ("solve_hjb",),
    "constructions.relu_flow": ("relu_flow",),
    "limits": ("convergence_study", "extrapolate"),
    "verdict": ("Verdict",),
    "experiment": ("Experiment", "RunFile"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "__version__"])  # noqa: PLE0605 (a list, made at import)


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
