"""The live system for tests: its commands as a user runs them, on a broker and a folder of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from thalweg.streams.configuration import Configuration, Kafka, to_builtins

THALWEG = [sys.executable, "-X", "faulthandler", "-m", "thalweg.streams.cli"]
IDLE = "1500ms"
HEARD = 1 << 20
"""Bytes that a command may say before anybody listens; beyond, it would stand still."""


def toml(raw: Mapping[str, Any], path: str = "") -> str:
    """Plain data as TOML: JSON's numbers, texts and lists are TOML's too."""
    lines, tables = [], []
    for key, value in raw.items():
        name = f"{path}{json.dumps(key)}"
        if isinstance(value, Mapping):
            tables.append(f"[{name}]\n{toml(value, f'{name}.')}")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], Mapping):
            tables += [f"[[{name}]]\n{toml(each, f'{name}.')}" for each in value]
        elif value is not None:
            lines.append(f"{json.dumps(key)} = {json.dumps(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def ended(process: subprocess.Popen[str], timeout: float) -> str:
    """Wait for a command's end; what it said on stderr. One that does not end says where all its threads are."""
    try:
        return process.communicate(timeout=timeout)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # for faulthandler
        said = process.communicate()[1]
        raise AssertionError(f"{process.args} did not end within {timeout} s: {said[-9000:]}") from None


class Live:
    """One application: its configuration file, its state and its commands.

    Parameters
    ----------
    folder : holds the configuration and the states

    Attributes
    ----------
    started : every command of every application; a test that fails in the middle leaves some running
    """

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, folder: Path, configuration: Configuration, kafka: Kafka) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.configuration = msgspec.structs.replace(configuration, kafka=kafka)
        self.file = folder / "live.toml"
        self.file.write_text(toml(to_builtins(self.configuration)))
        self.state = folder / "state"

    def command(self, *arguments: str) -> list[str]:
        """A command with the configuration and the broker."""
        return [*THALWEG, *arguments, "--config", str(self.file)]

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command."""
        said = {**os.environ, "THALWEG_TIME__IDLE_TIMEOUT": IDLE, **environment}
        command, pipe = self.command(*arguments), subprocess.PIPE
        process = subprocess.Popen(command, env=said, stdout=pipe, stderr=pipe, text=True, pipesize=HEARD)
        self.started.append(process)
        return process

    def run(self, *arguments: str, status: int | None = 0, timeout: float = 600, **environment: str) -> str:
        """Run a command to its end; what it said on stderr."""
        process = self.start(*arguments, **environment)
        said = ended(process, timeout)
        assert status is None or process.returncode == status, (arguments, process.returncode, said[-3000:])
        return said

    def create(self, raw: int = 1) -> None:
        """Make the topics."""
        self.run("topics", "create", "--raw", str(raw))

    def publish(self, *logs: Path, status: int = 0, close: bool = False) -> None:
        """Send logs, flat out."""
        self.run("publish", *map(str, logs), "--flat-out", *(["--close"] if close else []), status=status)

    def worker(self, *more: str, status: int | None = 0, **environment: str) -> str:
        """Run a worker until nothing is left to do."""
        return self.run(
            "worker", "--state", str(self.state), "--until-idle", "1", "--verbose", *more, status=status, **environment
        )
