"""Data to evolve: small real sets, generated ones, and a user's own fields.

Three public data sets come with the package (see data/README.md for where they
are from); circles, annuli, XOR squares, moons and spirals are made from a seed;
`load_fields` reads fields from a file that nobody vouches for.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meanfield._checks import Array, check_memory, finite_array, finite_float, positive_int
from meanfield._fieldfiles import load_fields
from meanfield.errors import ConfigError, CorruptFileError

__all__ = [
    "Dataset",
    "annuli",
    "circles",
    "digits",
    "interpolate_square",
    "iris",
    "load_fields",
    "moons",
    "spirals",
    "wine",
    "xor",
]

Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Points in R^d with the class of each.

    Attributes
    ----------
    x : array (n, d)
        The points.
    labels : int array (n,)
        Class of each point, an index into `class_names`.
    name : str
        Short name.
    feature_names : tuple of str
        The d columns of `x`, with their units where they have one.
    class_names : tuple of str
        The classes.
    source : str
        Where the points come from.

    Raises
    ------
    ConfigError
        For points that are not finite, mismatched lengths, labels out of range.
    """

    x: Array
    labels: Labels
    name: str
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    source: str

    def __post_init__(self) -> None:
        x = finite_array("x", self.x, shape=(None, None))
        labels = np.asarray(self.labels)
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise ConfigError(f"labels must be a vector of integers, got {labels.dtype} of shape {labels.shape}")
        if len(labels) != len(x):
            raise ConfigError(f"x holds {len(x)} points and labels {len(labels)}")
        if len(self.feature_names) != x.shape[1]:
            raise ConfigError(f"x has {x.shape[1]} columns and feature_names {len(self.feature_names)}")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.class_names):
            raise ConfigError(f"labels must lie in 0 .. {len(self.class_names) - 1}")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "labels", labels.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)

    def standardised(self) -> Dataset:
        """Return the same points with mean 0 and variance 1 in each column; a constant column becomes 0."""
        centred = self.x - self.x.mean(axis=0)
        # A constant column leaves round-off of its mean behind, which must not be blown up to size 1.
        constant = np.ptp(self.x, axis=0) == 0
        scale = np.where(constant, 1.0, centred.std(axis=0))
        return replace(self, x=np.where(constant, 0.0, centred / scale))

    def split(self, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Split at random into two parts that keep the proportions of the classes.

        Parameters
        ----------
        fraction : float
            Share of the points that go into the first part, in (0, 1). Of each class it
            holds the nearest whole number of points.
        seed : int
            Seed of the choice.

        Returns
        -------
        first, second : Dataset
            Disjoint, together everything, each in the original order.
        """
        fraction = finite_float("fraction", fraction, above=0.0)
        if fraction >= 1.0:
            raise ConfigError(f"fraction must be < 1, got {fraction!r}")
        (rng,) = _generators(seed, 1)
        chosen = np.zeros(len(self), dtype=bool)
        for label in range(len(self.class_names)):
            members = np.flatnonzero(self.labels == label)
            chosen[rng.permutation(members)[: round(fraction * len(members))]] = True
        first, second = (replace(self, x=self.x[part], labels=self.labels[part]) for part in (chosen, ~chosen))
        return first, second


# ---------------------------------------------------------------- the real data sets

_SHA256 = {
    "digits.csv.gz": "8264f537c58275741b89481e1db06d133b0fc87bbfa43fda66d5106f9b6ab21b",
    "iris.csv": "87f0ef5229d3c2825151152009663887281a6e3e164d35161efdbdfb69951049",
    "wine.csv": "23e4194a5c52a750cd051677786d41f8de435bb6fc210f597f07080b5d910ef7",
}
_PACKAGE = Path(__file__).resolve().parent


def _shipped(filename: str) -> bytes:
    """Contents of a file of data/, its checksum verified."""
    folders = (_PACKAGE / "_data", _PACKAGE.parent / "data")  # installed, source tree
    for folder in folders:
        path = folder / filename
        if path.is_file():
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if digest != _SHA256[filename]:
                raise CorruptFileError(
                    f"{path}: SHA-256 is {digest}, expected {_SHA256[filename]}: the file has been changed"
                )
            return content
    raise CorruptFileError(f"{filename} is missing from the installation: not in {folders[0]}, nor in {folders[1]}")


def _labelled_table(filename: str, name: str, class_names: tuple[str, ...], source: str) -> Dataset:
    content = _shipped(filename)
    text = (gzip.decompress(content) if filename.endswith(".gz") else content).decode("ascii")
    header, _, body = text.partition("\n")
    table = np.loadtxt(io.StringIO(body), delimiter=",")
    return Dataset(
        x=np.ascontiguousarray(table[:, :-1]),
        labels=table[:, -1].astype(np.int64),
        name=name,
        feature_names=tuple(header.split(",")[:-1]),
        class_names=class_names,
        source=source,
    )


def digits() -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, values 0 .. 16, row by row: (1797, 64).

    Source: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0.
    """
    source = "Alpaydin and Kaynak (1998), UCI, doi:10.24432/C50P49, CC BY 4.0"
    return _labelled_table("digits.csv.gz", "digits", tuple("0123456789"), source)


def wine() -> Dataset:
    """178 wines of three cultivators, 13 chemical measurements: (178, 13).

    Source: S. Aeberhard and M. Forina, UCI Machine Learning Repository, doi:10.24432/C5PC7J, CC BY 4.0.
    """
    source = "Aeberhard and Forina (1991), UCI, doi:10.24432/C5PC7J, CC BY 4.0"
    return _labelled_table("wine.csv", "wine", ("cultivator 1", "cultivator 2", "cultivator 3"), source)


def iris() -> Dataset:
    """150 irises of three species, 4 lengths in cm: (150, 4).

    Source: R. A. Fisher, UCI Machine Learning Repository, doi:10.24432/C56C76, CC BY 4.0.
    """
    source = "Fisher (1936), UCI, doi:10.24432/C56C76, CC BY 4.0"
    return _labelled_table("iris.csv", "iris", ("setosa", "versicolor", "virginica"), source)


# ---------------------------------------------------------------- generated data sets


def _generators(seed: int, count: int) -> list[np.random.Generator]:
    """Independent generators of one seed."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, numbers.Integral) or int(seed) < 0:
        raise ConfigError(f"seed must be an integer >= 0, got {seed!r}")
    return [np.random.default_rng(child) for child in np.random.SeedSequence(int(seed)).spawn(count)]


def _sizes(n: int, parts: int) -> list[int]:
    """`n` in `parts` sizes that differ by at most one."""
    return [n // parts + (k < n % parts) for k in range(parts)]


def _assemble(
    name: str, seed: int, noise: float, parts: Sequence[tuple[int, Array]], streams: Sequence[np.random.Generator]
) -> Dataset:
    """One data set of parts (class, points), noise added, shuffled.

    Noise and order have streams of their own: another noise moves the same points.
    """
    noise = finite_float("noise", noise, least=0.0)
    jitter, shuffle = streams
    x = np.concatenate([points for _, points in parts])
    x += noise * jitter.standard_normal(x.shape)
    labels = np.repeat([label for label, _ in parts], [len(points) for _, points in parts])
    permutation = shuffle.permutation(len(x))
    return Dataset(
        x=x[permutation],
        labels=labels[permutation],
        name=name,
        feature_names=("x_1", "x_2"),
        class_names=tuple(str(k) for k in range(parts[-1][0] + 1)),
        source=f"generated: {name}, n = {len(x)}, noise = {noise:g}, seed = {int(seed)}",
    )


def _ring(rng: np.random.Generator, n: int, inner: float, outer: float) -> Array:
    """`n` points uniform in area on the annulus inner <= r <= outer."""
    radius = np.sqrt(inner**2 + (outer**2 - inner**2) * rng.random(n))
    angle = 2.0 * math.pi * rng.random(n)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


def circles(n: int = 400, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Concentric circles: class 0 in the disc r <= 0.5, class 1 in the ring 1 <= r <= 1.5, uniform in area.

    Parameters
    ----------
    n : int
        Number of points; the classes differ by at most one.
    noise : float
        Standard deviation of Gaussian noise added to both coordinates.
    seed : int
        Seed; the same one gives the same points.

    Returns
    -------
    Dataset
        Points (n, 2).

    Notes
    -----
    Source: Esteve, Geshkovski, Pighin, Zuazua, arXiv:2008.02491, numerical examples.
    """
    rng, *streams = _generators(seed, 3)
    sizes = _sizes(positive_int("n", n), 2)
    parts = [(0, _ring(rng, sizes[0], 0.0, 0.5)), (1, _ring(rng, sizes[1], 1.0, 1.5))]
    return _assemble("circles", seed, noise, parts, streams)


def annuli(n: int = 600, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Three concentric annuli, a class each: r in [0, 0.5], [1, 1.5], [2, 2.5], uniform in area.

    Parameters as in `circles`. Source: as there.
    """
    rng, *streams = _generators(seed, 3)
    parts = [(k, _ring(rng, size, float(k), k + 0.5)) for k, size in enumerate(_sizes(positive_int("n", n), 3))]
    return _assemble("annuli", seed, noise, parts, streams)


def xor(n: int = 400, noise: float = 0.0, seed: int = 0) -> Dataset:
    """XOR squares: 0.1 <= |x_1|, |x_2| <= 1, class 0 where the signs agree and 1 where they differ.

    Parameters as in `circles`. Source: as there (the gap between the squares is ours).
    """
    rng, *streams = _generators(seed, 3)
    parts = []
    for label, size in enumerate(_sizes(positive_int("n", n), 2)):
        for sign, count in zip((1.0, -1.0), _sizes(size, 2), strict=True):
            corner = np.array([sign, sign if label == 0 else -sign])
            parts.append((label, corner * (0.1 + 0.9 * rng.random((count, 2)))))
    return _assemble("xor", seed, noise, parts, streams)


def moons(n: int = 400, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Two half circles of radius 1 that reach into each other: (cos a, sin a) and (1 - cos a, 1/2 - sin a).

    Parameters as in `circles`; a is uniform on [0, pi].
    """
    rng, *streams = _generators(seed, 3)
    upper, lower = (math.pi * rng.random(size) for size in _sizes(positive_int("n", n), 2))
    parts = [
        (0, np.column_stack([np.cos(upper), np.sin(upper)])),
        (1, np.column_stack([1.0 - np.cos(lower), 0.5 - np.sin(lower)])),
    ]
    return _assemble("moons", seed, noise, parts, streams)


def spirals(n: int = 400, noise: float = 0.0, seed: int = 0) -> Dataset:
    """Two arms r = a, angle = 3 pi a + k pi with k = 0, 1 and a in [0.1, 1].

    Parameters as in `circles`; a^2 is uniform, which keeps the points about evenly spaced along the arms.
    """
    rng, *streams = _generators(seed, 3)
    parts = []
    for arm, size in enumerate(_sizes(positive_int("n", n), 2)):
        a = np.sqrt(0.01 + 0.99 * rng.random(size))
        angle = 3.0 * math.pi * a + arm * math.pi
        parts.append((arm, np.column_stack([a * np.cos(angle), a * np.sin(angle)])))
    return _assemble("spirals", seed, noise, parts, streams)


# ---------------------------------------------------------------- images as fields


def interpolate_square(images: Any, n: int) -> Array:
    r"""Interpolate square images to fields on the n x n midpoint grid of the unit square.

    A pixel in row r and column c of a k x k image is the value of the field at
    :math:`((r + 1/2)/k, (c + 1/2)/k)`. Between the pixel centres the field is bilinear,
    in the half cells at the edge constant across it, so its range is never exceeded.

    Parameters
    ----------
    images : array (n_samples, k, k) or (n_samples, k * k)
        The images, row by row when flat.
    n : int
        Labels per side. With n = k the images come back unchanged.

    Returns
    -------
    array (n_samples, n * n)
        Node ``i * n + j`` lies at :math:`((i + 1/2)/n, (j + 1/2)/n)`.

    Raises
    ------
    ConfigError
        For images that are not square or not finite.
    ResourceError
        For a result that does not fit into memory.
    """
    n = positive_int("n", n)
    array = finite_array("images", images)
    side = math.isqrt(array.shape[-1]) if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if side == 0 or array.shape[1:] not in {(side, side), (side * side,)}:
        raise ConfigError(f"images must have shape (n_samples, k, k) or (n_samples, k * k), got {array.shape}")
    check_memory(f"interpolation to {n} x {n} labels", 16 * (len(array) * n * max(n, side) + n * side))
    # The position in pixels as a fraction of integers: exactly a pixel where one is met.
    position = np.clip(((2 * np.arange(n) + 1) * side - n) / (2 * n), 0, side - 1)
    left = position.astype(np.int64)
    right = np.minimum(left + 1, side - 1)
    share = position - left
    pixels = array.reshape(len(array), side, side)
    # a + s (b - a), not (1 - s) a + s b: a constant stays that constant to the last bit.
    rows = pixels[:, left] + share[:, None] * (pixels[:, right] - pixels[:, left])
    fields = rows[:, :, left] + share * (rows[:, :, right] - rows[:, :, left])
    return np.ascontiguousarray(fields.reshape(len(array), n * n))
