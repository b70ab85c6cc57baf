"""The harness of an experiment: from a Config and a function to a command with files, figure and verdicts.

    python experiments/NAME.py [--smoke | --full] [--config FILE.toml] [--out PATH]
                               [--resume PATH] [--overwrite] [--seed N] [--threads N] [--quiet]

Values of the command line come before those of the TOML file, those before the preset
of --smoke or --full, and those before the defaults. Exit codes: 0 every verdict holds,
3 one fails, 2 bad input or a computation that broke down, 130 interrupted and saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import inspect
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from meanfield import config as configs
from meanfield.errors import ConfigError, MeanfieldError, OutputError
from meanfield.progress import Progress
from meanfield.storage.run import create_run, open_run
from meanfield.verdict import Verdict, exit_code, table

if TYPE_CHECKING:
    from meanfield.learning.quasi_newton import Optimum
    from meanfield.learning.training import Training
    from meanfield.optima import Solver
    from meanfield.solution import Solution
    from meanfield.storage.reader import Run
    from meanfield.storage.writer import RunWriter

INTERRUPTED = 130
CONSEQUENCE = "consequence of the model"


class RunFile:
    """What an experiment's `run` works with: integrations, computations and verdicts that are stored once.

    Everything is kept by label and a digest of its inputs, so that a resumed script
    gets finished results back and continues the interrupted one.
    """

    def __init__(self, writer: RunWriter, config: Any, seed: int, progress: Progress) -> None:
        self.config = config
        self.seed = seed
        self.verdicts: list[Verdict] = []
        self._writer = writer
        self._progress = progress
        self._solutions: dict[str, Solution] = {}
        self._keys: dict[str, str] = {}

    def integrate(self, label: str, model: Any, y0: Any, t_span: tuple[float, float], **options: Any) -> Solution:
        """Integrate as `meanfield.integrate` does, into the series `label` of the run file.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, with everything saved.
        ResumeMismatchError
            If the label is stored with other inputs.
        """
        from meanfield.recording import record  # noqa: PLC0415  (numba loads when a solver is first used)
        from meanfield.solution import Status  # noqa: PLC0415

        with self._progress.task(label) as advance, _on_interrupt(signal.default_int_handler):
            solution = record(self._writer, label, model, y0, t_span, progress=advance, **options)
        if solution.status is Status.INTERRUPTED:
            raise KeyboardInterrupt
        self._solutions[label] = solution
        return solution

    def series(self, label: str) -> dict[str, Any]:
        """Columns recorded under a label of this run: time axes, fields and probes by name."""
        if label not in self._solutions:
            raise ConfigError(f"no series {label!r} in this run; integrate it first")
        solution = self._solutions[label]
        return {"time": solution.t, **solution.fields, **{k: v[1] for k, v in solution.probes.items()}}

    def once(self, label: str, function: Callable[[], Mapping[str, Any]], inputs: Any = ()) -> dict[str, Any]:
        """Return the table `label`: stored, or computed by `function` and stored.

        Parameters
        ----------
        label
            Name of the table.
        function
            Returns the columns, 1-D arrays of one length by name.
        inputs
            Everything the result depends on.

        Raises
        ------
        ConfigError
            For a label that this run has used for other inputs.
        """
        from meanfield.recording import digest  # noqa: PLC0415

        key = digest(inputs, function)
        if self._keys.setdefault(label, key) != key:
            raise ConfigError(f"label {label!r} stands for something else in this run already")
        found = self._writer.table(label, key)
        if found is None:
            with self._progress.task(label, note="computing"):
                self._writer.put_table(label, function(), inputs=key)
            found = self._writer.table(label, key)
        assert found is not None
        return dict(found)

    def optimum(
        self, label: str, problem: Training, solver: Solver | None = None, start: Any = None, **options: Any
    ) -> Optimum:
        """Optimum that a solver finds, `minimise` by default: kept as the tables `label` and `label_history`.

        An interrupted solver starts again from its start.
        """
        from meanfield.learning.quasi_newton import minimise  # noqa: PLC0415
        from meanfield.optima import Minimisation  # noqa: PLC0415

        return Minimisation(problem, solver or minimise, start, options).stored(self.once, label)

    def verdict(self, verdict: Verdict) -> None:
        """Store a verdict; it appears in the table at the end."""
        self._writer.put_verdict(verdict.row())
        self.verdicts.append(verdict)

    def near(
        self,
        claim: str,
        predicted: float,
        measured: float,
        *,
        tolerance: float,
        reason: str,
        relative: bool = True,
        source: str = CONSEQUENCE,
    ) -> None:
        """Store the verdict of `Verdict.near`."""
        judged = Verdict.near(
            claim, predicted, measured, tolerance=tolerance, reason=reason, source=source, relative=relative
        )
        self.verdict(judged)

    def at_most(self, claim: str, bound: float, measured: float, *, reason: str, source: str = CONSEQUENCE) -> None:
        """Store the verdict of `Verdict.at_most`."""
        self.verdict(Verdict.at_most(claim, bound, measured, reason=reason, source=source))


def _stop_at_once(number: int, frame: Any) -> None:
    signal.default_int_handler(number, frame)


@contextlib.contextmanager
def _on_interrupt(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Handle Ctrl-C so inside the block.

    `integrate` turns the default handler, and no other, into an early end with a status. That is right where it
    records; elsewhere nobody may look, and half a result would be stored as a whole one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment as a command.

    Parameters
    ----------
    name
        Name of the script and of its default output, runs/NAME.h5.
    config
        Frozen dataclass of parameters, fields made by `config.option`.
    run
        ``run(config, run_file)``: integrates and judges.
    figure
        ``figure(run, path)``: draws from the stored file; None draws nothing.
    smoke, full
        Presets of ``--smoke`` and ``--full``.
    references
        Papers the file cites.
    """

    name: str
    config: type
    run: Callable[[Any, RunFile], None]
    figure: Callable[[Run, Path], None] | None = None
    smoke: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    full: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    references: tuple[str, ...] = ()
    description: str = ""

    def main(self, argv: list[str] | None = None) -> int:
        """Run the command; return its exit code, printing errors as one line."""
        given = None
        try:
            given = self._parse(sys.argv[1:] if argv is None else argv)
            return 0 if given is None else self._execute(given)
        except MeanfieldError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            path = "" if given is None else f"; continue with --resume {_output(self.name, given)}"
            print(f"interrupted{path}", file=sys.stderr)
            return INTERRUPTED

    def _parse(self, argv: list[str]) -> dict[str, Any] | None:
        """Flags given, by name; None after --help."""
        import cyclopts  # noqa: PLC0415  (an import of the package stays fast)

        def command(**values: Any) -> dict[str, Any]:
            return values

        parameters = [*_common_flags(), *_config_flags(self.config)]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        text = self.description or inspect.getdoc(self.config) or ""
        app = cyclopts.App(name=f"{self.name}.py", help=text, version_flags=[], result_action="return_value")
        app.default(command)
        try:
            chosen, bound, _ = app.parse_args(argv, exit_on_error=False, print_error=False)
        except cyclopts.CycloptsError as error:
            raise ConfigError(str(error)) from None
        if chosen is not command:
            chosen(*bound.args, **bound.kwargs)
            return None
        return dict(bound.arguments)

    def _execute(self, given: dict[str, Any]) -> int:
        config, seed = self._configuration(given)
        path = _output(self.name, given)
        if "threads" in given:
            from meanfield.parallel import set_threads  # noqa: PLC0415

            set_threads(configs.load(_Threads, {"threads": given["threads"]}).threads)
        if self.figure is not None:
            _check_figure(path, may_exist="resume" in given or bool(given.get("overwrite")))
        writer = create_run(
            path,
            dataclasses.asdict(config),
            experiment=self.name,
            seed=seed,
            overwrite=given.get("overwrite", False),
            resume="resume" in given,
            references=self.references,
        )
        quiet = given.get("quiet", False)
        with writer, Progress(quiet=quiet) as progress:
            run_file = RunFile(writer, config, seed, progress)
            try:
                with _on_interrupt(_stop_at_once):
                    self.run(config, run_file)
            except MeanfieldError:
                writer.abandon()
                raise
            sealed = writer.seal()
        if self.figure is not None:
            with open_run(sealed) as run:
                self.figure(run, sealed.with_suffix(".png"))
        if not quiet:
            self._report(run_file.verdicts, sealed)
        return exit_code(run_file.verdicts)

    def _configuration(self, given: dict[str, Any]) -> tuple[Any, int]:
        """Configuration and seed from the flags, the file, the preset and, on resume, the stored run."""
        if given.get("smoke") and given.get("full"):
            raise ConfigError("--smoke and --full exclude each other")
        names = {f.name for f in dataclasses.fields(self.config)}
        values: dict[str, Any] = {}
        seed: Any = 0
        if "resume" in given:
            if "out" in given or given.get("overwrite"):
                raise ConfigError("--resume goes on in its own file; leave --out and --overwrite away")
            with open_run(given["resume"]) as stored:
                stored_name = stored.attrs.get("experiment", self.name)
                if stored_name != self.name:
                    raise ConfigError(f"{given['resume']} is a run of {stored_name}, not of {self.name}")
                values.update(stored.config)
                seed = int(stored.attrs.get("seed", 0))
        values.update(self.smoke if given.get("smoke") else self.full if given.get("full") else {})
        if "config" in given:
            from_file = configs.read_toml(given["config"])
            seed = from_file.pop("seed", seed)
            configs.load(self.config, from_file, source=str(given["config"]))
            values.update(from_file)
        values.update({k: v for k, v in given.items() if k in names})
        seed = given.get("seed", seed)
        number = configs.load(_Seed, {"seed": seed}).seed
        return configs.load(self.config, values), number

    def _report(self, verdicts: list[Verdict], path: Path) -> None:
        from rich.console import Console  # noqa: PLC0415

        console = Console()
        wide = Console(width=max(console.width, 110)) if not console.is_terminal else console
        wide.print(table(verdicts))
        held = sum(v.status == "holds" for v in verdicts)
        figure = f", {path.with_suffix('.png').name}" if self.figure else ""
        wide.print(f"{held} of {len(verdicts)} verdicts hold; wrote {path}{figure}", highlight=False)


@dataclasses.dataclass(frozen=True)
class _Seed:
    seed: int = configs.option(0, "seed", least=0)


@dataclasses.dataclass(frozen=True)
class _Threads:
    threads: int = configs.option(1, "threads", least=1)


def _output(name: str, given: Mapping[str, Any]) -> Path:
    return Path(given["resume"] if "resume" in given else given.get("out", f"runs/{name}.h5"))


def _check_figure(path: Path, *, may_exist: bool) -> None:
    """Refuse an output whose figure would take the place of something."""
    if path.suffix == ".png":
        raise ConfigError(f"path {str(path)!r} ends in .png, the name of the figure; the run needs another ending, .h5")
    if path.name and "\0" not in path.name and not may_exist and path.with_suffix(".png").exists():
        raise OutputError(
            errno.EEXIST, "figure exists already; use overwrite to replace it", str(path.with_suffix(".png"))
        )


def _flag(name: str, kind: Any, default: Any, words: str, group: str) -> inspect.Parameter:
    from cyclopts import Parameter  # noqa: PLC0415

    annotation = Annotated[kind, Parameter(help=words, group=group, negative="")]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _common_flags() -> list[inspect.Parameter]:
    group = "Running"
    return [
        _flag("smoke", bool, False, "small sizes, seconds", group),
        _flag("full", bool, False, "the paper's sizes", group),
        _flag("config", str, None, "TOML file of parameters", group),
        _flag("out", str, None, "file to write (default runs/NAME.h5); the figure goes beside it", group),
        _flag("resume", str, None, "interrupted or finished run to go on with", group),
        _flag("overwrite", bool, False, "replace an existing output once the new one is complete", group),
        _flag("seed", Integer, "0", "seed of everything random", group),
        _flag("threads", Integer, None, "threads (default: all processors)", group),
        _flag("quiet", bool, False, "no progress bar, no table", group),
    ]


class Integer(str):
    """Text of a flag that stands for an integer; the name is what ``--help`` shows."""

    __slots__ = ()


class Number(str):
    """Text of a flag that stands for a number; the name is what ``--help`` shows."""

    __slots__ = ()


_SHOWN: dict[type, type] = {bool: bool, int: Integer, float: Number, str: str}


def _config_flags(config: type) -> list[inspect.Parameter]:
    # Numbers come in as text and are converted by `config.load`: one set of messages for flags and files.
    return [
        _flag(
            f.name,
            _SHOWN[type(f.default)],
            f.default if isinstance(f.default, bool) else _SHOWN[type(f.default)](f.default),
            f.metadata.get("help", ""),
            "Parameters",
        )
        for f in dataclasses.fields(config)
    ]
