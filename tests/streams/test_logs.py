"""What a live process says: its own lines as they are, its libraries' seldom."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from thalweg.streams import logs


@contextmanager
def logging_to_stderr(level: int) -> Iterator[None]:
    """As in a process of its own; handlers and levels are given back."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("thalweg", *logs.LIBRARIES)}
    kept, root.handlers = root.handlers, []
    try:
        logs.log_to_stderr(level)
        yield
    finally:
        root.handlers = kept
        for name, before in levels.items():
            logging.getLogger(name).setLevel(before)


def say(times: int) -> None:
    for _ in range(times):
        logging.getLogger("aiokafka.conn").error("cannot connect")
        logging.getLogger("thalweg.worker").warning("left something")
        logging.getLogger("thalweg.worker").info("assigned")


def test_errors_of_the_libraries_come_seldom(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with logging_to_stderr(logging.WARNING):
        say(50)
        said = capsys.readouterr().err
        assert said.count("cannot connect") == 1 and said.count("left something") == 50 and "assigned" not in said
        monkeypatch.setattr(logs, "SELDOM", -1.0)
        say(2)
    assert capsys.readouterr().err.count("cannot connect") == 2


def test_all_of_it_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr(logging.INFO):
        say(5)
    said = capsys.readouterr().err
    assert said.count("cannot connect") == said.count("assigned") == 5
