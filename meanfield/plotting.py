"""Figures: one house style, and an overview of any run file.

Matplotlib is imported when a figure is drawn, with its Agg backend, so figures work
where there is no screen. Colours are those of Okabe and Ito, which colour-blind
readers can tell apart.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meanfield.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from meanfield.storage.reader import Run, Series

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FIELD_MAP = "viridis"
_MAX_PANELS = 12
# So few frames are lines, more are an image.
_FEW_FRAMES = 4


@contextmanager
def style() -> Iterator[Any]:
    """Matplotlib's pyplot under the house style, figures closed at the end."""
    import matplotlib as mpl  # noqa: PLC0415  (slow to import, needed only here)

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415
    from cycler import cycler  # noqa: PLC0415 (comes with matplotlib)

    settings: Any = {
        "axes.prop_cycle": cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.labelsize": 9,
        "font.size": 9,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        "figure.dpi": 110,
        "savefig.dpi": 110,
        "image.cmap": FIELD_MAP,
    }
    with mpl.rc_context(settings):
        try:
            yield plt
        finally:
            plt.close("all")


def save(figure: Any, path: str | Path) -> Path:
    """Write a figure as PNG, without the time of writing, so that equal figures are equal files.

    Raises
    ------
    OutputError
        If it cannot be written, or something other than a PNG has its name.
    """
    target, image = Path(path), io.BytesIO()
    if "\0" in str(path):
        raise ConfigError(f"path {str(path)!r} of a figure holds a NUL character")
    figure.savefig(image, format="png", metadata={"Software": None})
    try:
        foreign = target.is_file() and not _is_png(target)
        if not foreign:
            target.write_bytes(image.getvalue())
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "")
        raise OutputError(error.errno, f"cannot write: {error.strerror} ({name})", str(target)) from None
    if foreign:
        raise OutputError(errno.EEXIST, "exists already and is no PNG, will not be replaced", str(target))
    return target


def _is_png(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(8) in (b"", b"\x89PNG\r\n\x1a\n")


def plot_run(run: Run, path: str | Path) -> Path:
    """Overview of a run: every series as a panel, fields over depth as lines or images.

    Raises
    ------
    ConfigError
        If the run holds no series.
    """
    labels = list(run.series)[:_MAX_PANELS]
    if not labels:
        raise ConfigError(f"{run.path}: the run holds no series to plot")
    columns = min(3, len(labels))
    rows = -(-len(labels) // columns)
    with style() as plt:
        size = (4.2 * columns, 3.0 * rows + 0.4)
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        for axis, label in zip(axes.flat, labels, strict=False):
            _panel(axis, run.series[label], label)
        for axis in axes.flat[len(labels) :]:
            axis.set_visible(False)
        more = len(run.series) - len(labels)
        title = f"{run.path.name}: {run.status}" + (f", {more} more series" if more > 0 else "")
        figure.suptitle(title, fontsize=11)
        return save(figure, path)


def _panel(axis: Any, series: Series, label: str) -> None:
    name = next(n for n in series if series.dims(n)[0] == "time" and n != "time")
    t, values = series["time"], series[name]
    axis.set_title(label.replace("_", " "))
    if values.ndim == 1:
        axis.plot(t, values)
        axis.set(xlabel="depth", ylabel=series.long_name(name) or name)
        return
    # Several samples: the first one. The last axis runs up the image.
    flat = values.reshape(len(t), -1, values.shape[-1])[:, 0]
    if len(t) <= _FEW_FRAMES:
        for depth, row in zip(t, flat, strict=True):
            axis.plot(np.arange(row.size), row, label=f"depth {depth:g}")
        axis.set(xlabel=series.dims(name)[-1], ylabel=series.long_name(name) or name)
        axis.legend()
        return
    image = axis.pcolormesh(t, np.arange(flat.shape[1]), flat.T, shading="nearest", rasterized=True)
    axis.set(xlabel="depth", ylabel=series.dims(name)[-1])
    axis.figure.colorbar(image, ax=axis, label=series.long_name(name) or name)
