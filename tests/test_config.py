"""Configurations: what is refused, with which words, and which source wins."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from meanfield.config import load, option, read_toml
from meanfield.errors import ConfigError


@dataclass(frozen=True)
class Config:
    n: int = option(4, "a size", least=2, most=100)
    dt: float = option(0.1, "a step", above=0.0)
    tolerance: float = option(1e-6, "a tolerance", least=0.0)
    name: str = option("tanh", "a choice", choices=("tanh", "relu"))
    fast: bool = option(False, "a switch")
    shift: float = option(0.0, "any number")


def test_values_of_the_right_kind_are_taken_from_files_and_flags():
    assert load(Config, {"n": 7, "dt": 1, "name": "relu", "fast": True}) == Config(n=7, dt=1.0, name="relu", fast=True)
    assert load(Config, {"n": "7", "dt": "0.5"}) == Config(n=7, dt=0.5)


BAD = [
    ({"dt": float("nan")}, r"dt must be finite, got nan"),
    ({"dt": "nan"}, r"dt must be finite, got nan"),
    ({"dt": 0}, r"dt must be > 0, got 0"),
    ({"dt": -1}, r"dt must be > 0, got -1"),
    ({"dt": "fast"}, r"dt must be a number, got 'fast'"),
    ({"n": 0}, r"n must be a positive integer, got 0"),
    ({"n": -3}, r"n must be a positive integer, got -3"),
    ({"n": 2.5}, r"n must be a positive integer, got 2.5"),
    ({"n": "2.5"}, r"n must be a positive integer, got '2.5'"),
    ({"n": True}, r"n must be a positive integer, got the bool True"),
    ({"n": 1}, r"n must be >= 2, got 1"),
    ({"n": 101}, r"n must be <= 100, got 101"),
    ({"n": 10**30}, r"n is out of range"),
    ({"n": "9" * 5000}, r"n is out of range"),
    ({"tolernace": 1.0}, r"unknown key 'tolernace', did you mean 'tolerance'"),
    ({"name": "gelu"}, r"name must be one of tanh, relu"),
    ({"name": 3}, r"name must be text"),
    ({"fast": 1}, r"fast must be true or false"),
    ({"shift": 10**400}, r"shift is out of range"),
    ({"shift": [1.0]}, r"shift must be a number"),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_values_are_refused(index):
    values, words = BAD[index]
    with pytest.raises(ConfigError, match=words):
        load(Config, values)
    with pytest.raises(ConfigError, match=r"file\.toml: "):
        load(Config, values, source="file.toml")


TOML = [
    ("n = 1\nn = 2\n", "duplicate key 'n'"),
    ("x = " + "[" * 100_000 + "]" * 100_000, "nested"),
    ("a" + ".a" * 100_000 + " = 1", "nested"),
    ("n = " + "9" * 5000, "'n' is out of range"),
    ("n = ", "Invalid value"),
]


@pytest.mark.parametrize("index", range(len(TOML)))
def test_bad_files_are_refused_quickly(index, tmp_path):
    text, words = TOML[index]
    path = tmp_path / "c.toml"
    path.write_text(text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=words) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600
    assert time.process_time() - start < 60, "not a matter of machine speed: the parser ran away"


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_toml(tmp_path / "latin.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    with pytest.raises(ConfigError, match="1 MiB"):
        read_toml(tmp_path / "large.toml")
