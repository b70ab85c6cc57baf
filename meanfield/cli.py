"""The command ``meanfield``: look at run files, check them, compare them, check the machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from meanfield.errors import ConfigError, FileFormatError, MeanfieldError

CITATION = """\
meanfield: width and depth limits of residual networks. The meanfield developers, version {version}.

The papers whose claims it computes:
  Liu, Markowich, Selection dynamics for deep neural networks, arXiv 1905.09076
  Thorpe, van Gennip, Deep limits of residual neural networks, arXiv 1810.11741
  Marion, Wu, Sander, Biau, Implicit regularization of deep residual networks towards neural ODEs, arXiv 2309.01213
  Mueller, On the space-time expressivity of ResNets, arXiv 1910.09599
  Esteve, Geshkovski, Pighin, Zuazua, Large-time asymptotics in deep learning, arXiv 2008.02491"""


def inspect(file: str) -> int:
    """Print what is in a run file, in one screen.

    Parameters
    ----------
    file
        A run file, or one that is still being written.
    """
    with _opened(file) as run:
        print(run.summary())
    return 0


def plot(file: str, *, out: str | None = None) -> int:
    """Draw an overview of a run file.

    Parameters
    ----------
    file
        A run file.
    out
        PNG to write; by default FILE with the ending .overview.png.
    """
    from meanfield.plotting import plot_run  # noqa: PLC0415  (matplotlib)

    with _opened(file) as run:
        target = plot_run(run, out or Path(file).with_suffix(".overview.png"))
    print(f"wrote {target}")
    return 0


def verify(file: str) -> int:
    """Check the digest of every dataset of a run file; exit 1 if one is wrong.

    Parameters
    ----------
    file
        A run file, or one that is still being written.
    """
    from meanfield.storage.run import verify as check  # noqa: PLC0415

    report = check(_existing(file))
    lines = [f"{report.path}: {report.checked} datasets checked, {len(report.problems)} wrong", *report.problems]
    print("\n".join(lines))
    return 0 if report.ok else 1


def compare(first: str, second: str) -> int:
    """List the differences of two run files, apart from when and where they were made; exit 1 if there are any.

    Parameters
    ----------
    first, second
        Run files.
    """
    from meanfield.storage.verify import compare as differences  # noqa: PLC0415

    found = differences(_existing(first), _existing(second))
    print("\n".join(_shortened(line) for line in found) if found else "identical")
    return 1 if found else 0


def doctor() -> int:
    """Check this machine: versions, threads, the cache of compiled code, one compilation."""
    import importlib.metadata  # noqa: PLC0415
    import platform  # noqa: PLC0415
    import time  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415

    from meanfield._version import __version__  # noqa: PLC0415
    from meanfield.parallel import get_threads  # noqa: PLC0415

    rows = [("meanfield", __version__), ("python", f"{platform.python_version()} on {platform.machine()}")]
    rows += [(name, importlib.metadata.version(name)) for name in ("numpy", "numba", "scipy", "h5py", "matplotlib")]
    rows.append(("threads", str(get_threads())))
    start = time.perf_counter()
    from meanfield._activate import TANH, apply_value  # noqa: PLC0415
    from meanfield._jit import cache_directory  # noqa: PLC0415

    x = np.linspace(-3, 3, 1001)
    out = np.empty_like(x)
    apply_value(TANH, x, out)
    error = float(np.abs(out - np.tanh(x)).max())
    rows.append(("compiled code", f"ready in {time.perf_counter() - start:.2f} s, error of tanh {error:.1e}"))
    directory = cache_directory()
    rows.append(("cache", str(directory) if directory else "none can be written: every process compiles anew"))
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name:{width}s}  {value}" for name, value in rows))
    return 0 if error < 1e-14 else 1


def cite() -> int:
    """Print how to cite the software and the papers behind it."""
    from meanfield._version import __version__  # noqa: PLC0415

    print(CITATION.format(version=__version__))
    return 0


def _shortened(line: str, width: int = 160) -> str:
    return line if len(line) <= width else f"{line[: width - 4]} ..."


def _existing(file: str) -> str:
    path = Path(file)
    if not path.exists() and not path.with_name(path.name + ".parts").exists():
        raise FileFormatError(f"{file}: no such file")
    return file


def _opened(file: str) -> Any:
    from meanfield.storage.run import open_run  # noqa: PLC0415  (h5py)

    return open_run(_existing(file))


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code: 0, 1 for differences, 2 for bad input."""
    import cyclopts  # noqa: PLC0415  (an import of the package stays fast)

    from meanfield._version import __version__  # noqa: PLC0415

    text = "Width and depth limits of residual networks: look at run files and check them."
    app = cyclopts.App(name="meanfield", help=text, version=__version__, result_action="return_value")
    for command in (inspect, plot, verify, compare, doctor, cite):
        app.command(command)
    try:
        tokens = sys.argv[1:] if argv is None else argv
        try:
            result = app(tokens, exit_on_error=False, print_error=False)
        except cyclopts.CycloptsError as error:
            raise ConfigError(str(error)) from None
        return int(result or 0)
    except MeanfieldError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
