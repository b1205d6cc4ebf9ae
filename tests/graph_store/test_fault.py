"""Fault sites: counted always, deadly only where armed, and only at the hit that was named."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from thalweg.graph_store import fault


@pytest.fixture(autouse=True)
def _disarm(monkeypatch):
    monkeypatch.setattr(fault, "hits", {})
    yield
    fault.arm(None)


def test_an_unarmed_site_is_counted_and_nothing_else():
    for _ in range(3):
        fault.reach("checkpoint done")
    assert fault.hits == {"checkpoint done": 3}


def test_another_site_than_the_armed_one_does_no_harm():
    fault.arm("checkpoint begins:1")
    fault.reach("checkpoint done")


def test_an_unknown_site_is_refused_naming_those_there_are():
    for site in fault.SITES:
        fault.arm(f"{site}:1000")
    with pytest.raises(ValueError, match="no fault site 'checkpoint'; sites: block applied, "):
        fault.arm("checkpoint:1")


def test_the_armed_hit_kills_and_the_one_before_does_not():
    code = (
        "from thalweg.graph_store import fault\nfault.arm('block applied:2')\n"
        "fault.reach('block applied'); print('one', flush=True)\n"
        "fault.reach('block applied'); print('two', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "one\n")
