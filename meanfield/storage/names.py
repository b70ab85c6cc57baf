"""Names that may stand in a file or become a path: nothing leads outside."""

from __future__ import annotations

import re
from pathlib import Path

from meanfield.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_\u00a1-\U0010ffff][^\x00-\x1f\x7f/]*")
_LONGEST = 200


def _leads_outside(name: str) -> str | None:
    if "\0" in name:
        return "it holds a NUL character"
    if name.startswith("/"):
        return "it is absolute"
    if ".." in re.split(r"[/\\]", name):
        return "it holds '..'"
    return None


def check_name(what: str, name: object) -> str:
    """Return `name` if a group, variable or attribute may be called so.

    The rule is netCDF's: a letter, digit or underscore first, no slash, no control
    character, no blank at the end, at most 200 bytes.

    Raises
    ------
    ConfigError
        Otherwise; for a name that would leave its place, the words "path" and "outside".
    """
    if not isinstance(name, str):
        raise ConfigError(f"{what} name must be text, got {name!r}")
    outside = _leads_outside(name)
    if outside is not None:
        raise ConfigError(f"{what} name {name!r} is a path that leads outside: {outside}")
    if not _NAME.fullmatch(name) or name != name.rstrip() or len(name.encode(errors="replace")) > _LONGEST:
        raise ConfigError(
            f"{what} name {name!r} must start with a letter, digit or underscore and hold neither '/' "
            f"nor control characters, at most {_LONGEST} bytes"
        )
    return check_text(what, name)


def check_text(what: str, value: object) -> str:
    """Return `value` if it is text that fixed-length UTF-8 can hold: no NUL, no lone surrogates.

    Raises
    ------
    ConfigError
        Otherwise.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{what} must be text, got {value!r}")
    if "\0" in value:
        raise ConfigError(f"{what} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what} is not valid Unicode: {value!r}") from None
    return value


def output_path(path: str | Path) -> Path:
    """Return the absolute path of a run to be written.

    An absolute path is taken as it is; a relative one must stay below the working
    directory, so that a run *name* from a config file cannot reach elsewhere.

    Raises
    ------
    ConfigError
        If it holds NUL, is empty, or leads outside (the words "path" and "outside").
    """
    text = str(path)
    if "\0" in text:
        raise ConfigError(f"path {text!r} leads outside: it holds a NUL character")
    given = Path(text)
    if not given.name or given.name == "..":
        raise ConfigError(f"path {text!r} names no file" + (" and leads outside" if ".." in given.parts else ""))
    depth = 0
    for part in given.parts if not given.is_absolute() else ():
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise ConfigError(f"path {text!r} leads outside the working directory; give it in absolute form")
    return given if given.is_absolute() else Path.cwd() / given
