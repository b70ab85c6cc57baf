"""Options and settings shared by all tests; the compile cache is the user's own and is left alone."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

os.environ["MPLBACKEND"] = "Agg"

# The same examples in every run: a failure seen once is seen by everybody.
settings.register_profile("meanfield", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("meanfield")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run the long tests (marked `full`)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: long; runs only with --full")
    # A shell may start the tests with Ctrl-C ignored, and they and their children inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="long: runs with --full")
    for item in items:
        if item.get_closest_marker("full") is not None:
            item.add_marker(skip)
