"""Configurations: a frozen dataclass, filled from defaults, presets, TOML and flags.

Every value is checked against the annotation and the limits of its field, wherever
it came from, so that a mistake reads the same in a file and on the command line.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from meanfield._checks import finite_float, nearest, one_of, positive_int, shown
from meanfield.errors import ConfigError

T = TypeVar("T")

_TOML_LIMIT = 1 << 20
_INT64 = 2**63


def option(
    default: Any,
    help: str,  # noqa: A002 (the word users of command lines expect)
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Return a field of a `Config`: default, a line of help, and limits.

    Parameters
    ----------
    default, help
        Default value; words shown by ``--help``.
    least, above, most
        Limits: value >= least, value > above, value <= most.
    choices
        The texts allowed.
    """
    limits = {"least": least, "above": above, "most": most, "choices": choices}
    return dataclasses.field(default=default, metadata={"help": help, **limits})


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file of at most 1 MiB.

    Raises
    ------
    ConfigError
        If it cannot be read, repeats a key, nests too deeply or holds a number out of range.
    """
    file = Path(path)
    if "\0" in str(path):
        raise ConfigError(f"config path {str(path)!r} holds a NUL character")
    try:
        if file.stat().st_size > _TOML_LIMIT:
            raise ConfigError(f"{file}: a configuration may have at most 1 MiB")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8 text") from None
    # Depth of brackets bounds the parser's recursion; counted first, as it may not come back from it.
    if _depth(text) > 50:
        raise ConfigError(f"{file}: values are nested more than 50 deep")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: values are nested too deeply") from None
    except tomllib.TOMLDecodeError as error:
        repeated = any(words in str(error) for words in ("overwrite", "twice", "Duplicate"))
        kind = f"duplicate key {_repeated(text)!r}: " if repeated else ""
        raise ConfigError(f"{file}: {kind}{error}") from None
    except ValueError as error:
        # Python refuses to convert integers of more than 4,300 digits.
        raise ConfigError(f"{file}: key {_long_number(text)!r} is out of range ({error})") from None


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    # Dotted keys, also those of inline tables, nest as well.
    before = (piece for line in text.splitlines() for piece in (line.split("=")[:-1] or [line]))
    keys = max((re.split(r"[,{]", piece)[-1].count(".") for piece in before), default=0)
    return max(deepest, keys)


def _repeated(text: str) -> str:
    seen: set[str] = set()
    for line in text.splitlines():
        key = line.split("=")[0].strip()
        if "=" in line and key in seen:
            return key
        seen.add(key)
    return "?"


def _long_number(text: str) -> str:
    line = max(text.splitlines(), key=len)
    return line.split("=")[0].strip()[:60]


def load(config: type[T], overrides: Mapping[str, Any], source: str = "") -> T:
    """Build a configuration from its defaults and overrides.

    Parameters
    ----------
    config
        A frozen dataclass whose fields come from `option`.
    overrides
        Values by field name; texts are converted where a number is asked for.
    source
        Where they came from, for messages.

    Raises
    ------
    ConfigError
        For an unknown key, a wrong type or a value beyond its limits.
    """
    fields = {f.name: f for f in dataclasses.fields(config)}  # type: ignore[arg-type]
    where = f"{source}: " if source else ""
    types = get_type_hints(config)
    values = {}
    for key, value in overrides.items():
        if key not in fields:
            raise ConfigError(f"{where}unknown key {key!r}{nearest(key, fields)}")
        try:
            values[key] = _checked(key, value, types[key], fields[key].metadata)
        except ConfigError as error:
            raise ConfigError(f"{where}{error}") from None
    return config(**values)


def _checked(name: str, value: Any, kind: type, limits: Mapping[str, Any]) -> Any:
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, got {shown(value)}")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be text, got {shown(value)}")
        return one_of(name, value, limits["choices"]) if limits.get("choices") else value
    number = _integer(name, value, limits) if kind is int else _number(name, value, limits)
    if limits.get("most") is not None and number > limits["most"]:
        raise ConfigError(f"{name} must be <= {limits['most']:g}, got {number!r}")
    return number


def _integer(name: str, value: Any, limits: Mapping[str, Any]) -> int:
    least = limits.get("least")
    from_zero = least is not None and least <= 0
    kind = f"an integer >= {least:g}" if from_zero else "a positive integer"
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            long = len(value) > 4000 and value.lstrip("+-").isdigit()
            what = "is out of range" if long else f"must be {kind}, got {value[:40]!r}"
            raise ConfigError(f"{name} {what}") from None
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= _INT64:
            raise ConfigError(f"{name} is out of range: an integer of {value.bit_length()} bits")
        if least is not None and value < least and (from_zero or value > 0):
            raise ConfigError(f"{name} must be >= {least:g}, got {value}")
        return value if from_zero else positive_int(name, value)
    if from_zero:
        what = "the bool " if isinstance(value, bool) else ""
        raise ConfigError(f"{name} must be {kind}, got {what}{shown(value)}")
    return positive_int(name, value)


def _number(name: str, value: Any, limits: Mapping[str, Any]) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ConfigError(f"{name} must be a number, got {value[:40]!r}") from None
    return finite_float(name, value, above=limits.get("above"), least=limits.get("least"))
