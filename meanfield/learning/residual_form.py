"""Space-time networks on a grid of labels, written as residual networks with one neuron to a label.

    W_ij(t) = q_j w(t, x_i, x_j),     d_t z = sigma(W z + b) or W sigma(z) + b

An exact change of variables: the objective, its minimisers and their Hamiltonians are the same. What is made for
residual networks, compiled paths and the minimum principle among it, then serves space-time networks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from meanfield.controls import Controls
from meanfield.errors import ConfigError
from meanfield.learning.training import Training
from meanfield.losses import Readout
from meanfield.models.residual import ResidualNetwork
from meanfield.models.spacetime import SpaceTimeNetwork
from meanfield.operators.dense import Dense
from meanfield.operators.path import OperatorPath
from meanfield.regularizers import DepthH1, DepthL2, Regularizer, Total
from meanfield.velocities import Velocity

Array = NDArray[np.float64]

_NAMES = {"weight": "w", "bias": "b"}


def residual_form(problem: Training) -> Training:
    """Return the same training problem with the layer matrices W in the place of the kernel w.

    Parameters
    ----------
    problem
        Problem of a `SpaceTimeNetwork` with a `Dense` kernel or a path of them, without a leak, an amplitude or a local
        part; penalties `DepthL2` and `DepthH1`.

    Returns
    -------
    Training
        Of a `ResidualNetwork` on (N, n); parameters are ``w`` and ``b``. Penalties keep their values: weights u_ij of
        |w_ij|^2 become u_ij/q_j^2 of |W_ij|^2.

    Raises
    ------
    ConfigError
        For another network or other penalties; for a problem with a readout that is trained, whose penalty would
        change.
    """
    model = problem.model
    if not isinstance(model, SpaceTimeNetwork):
        raise ConfigError(f"residual_form takes a problem of a SpaceTimeNetwork, got {type(model).__name__}")
    assert problem.readout is not None
    if problem.readout.trained or problem.readout_penalty:
        raise ConfigError("residual_form needs a readout that is fixed, not trained, and no readout_penalty")
    if not isinstance(model.bias, Controls) and not model.bias.shape and "bias" in (problem.trained or ()):
        raise ConfigError("a bias that is one number has no residual form when trained: give a field of the labels")
    q = model.grid.weights
    regularizers = {_NAMES[name]: _scaled(term, name, q) for name, term in problem.regularizers.items()}
    return replace(
        problem,
        model=ResidualNetwork(_velocity(model), model.n_samples or 1),
        x=np.ascontiguousarray(problem.x.reshape(-1, len(q)).T),
        readout=Readout(problem.readout.p * q, problem.readout.c),
        regularizers=regularizers,
        trained=tuple(_NAMES[name] for name in problem.trained or ()),
    )


def kernel_values(model: ResidualNetwork, weights: Array) -> Array:
    """Kernels w(t_k, x_i, x_j) = W_ij/q_j of a residual network with one neuron to a label, (K, N, N)."""
    part = model.parameters["w"]
    return np.asarray((part.values if isinstance(part, Controls) else part) / weights)


def _velocity(model: SpaceTimeNetwork) -> Velocity:
    operator = model.operator
    each = operator.operators if isinstance(operator, OperatorPath) else (operator,)
    plain = all(isinstance(one, Dense) and one.storage == "float64" and not one.local for one in each)
    if not plain or model.leak or model.amplitude is not None:
        raise ConfigError(
            "only a SpaceTimeNetwork with Dense kernels in double precision, without leak, amplitude and local part, "
            "has a residual form"
        )
    part, q = model.parameters["weight"], model.grid.weights
    w = Controls(part.knots, part.values * q, part.interpolation) if isinstance(part, Controls) else part * q
    bias = model.bias
    if isinstance(bias, Controls) and not bias.shape:
        raise ConfigError("a bias that is one number at each depth has no residual form: give a field of the labels")
    make = Velocity.outside if model.placement == "outside" else Velocity.inside
    return make(model.activation, w, bias if isinstance(bias, Controls) else np.broadcast_to(bias, q.shape).copy())


def _scaled(regularizer: Regularizer, name: str, q: Array) -> Regularizer:
    """Penalty of W from that of w; of the bias as it is."""
    if name == "bias":
        return regularizer
    if isinstance(regularizer, Total):
        return Total(tuple(_scaled(term, name, q) for term in regularizer.terms))
    if not isinstance(regularizer, (DepthL2, DepthH1)):
        raise ConfigError(f"penalty of the kernel must be DepthL2 or DepthH1, got {regularizer!r}")
    weights = 1.0 if regularizer.weights is None else regularizer.weights
    return replace(regularizer, weights=np.broadcast_to(weights, (len(q), len(q))) / q**2)
