"""The worker: it has not come to an end while the group shares its partitions out again; when Faust ends, it says so;
`state inspect` shows it at work."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import delete_topic
from tests.live import THALWEG, Live
from thalweg.graph_store.state_store import StateError
from thalweg.streams.broker_error import BrokerError
from thalweg.streams.configuration import Configuration, Kafka, load
from thalweg.streams.faust_app import make_app
from thalweg.streams.funnel import simulate
from thalweg.streams.kafka import create_topics, internal
from thalweg.streams.status import running
from thalweg.streams.topology import FLOWS
from thalweg.streams.worker import Worker

pytestmark = pytest.mark.broker


def test_it_is_not_quiet_between_losing_its_partitions_and_the_next_assignment(kafka: Kafka, tmp_path: Path) -> None:
    create_topics(kafka, 1)
    worker = Worker(Configuration(kafka=kafka), tmp_path / "state", until_idle=1)
    assert not worker._quiet()
    worker.assign([])
    assert worker._quiet(), "given nothing: it stands by, and has nothing to do"
    worker.assign(None)
    assert not worker._quiet()


def test_when_faust_ends_the_worker_ends_with_an_error(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a supervisor would take it for done."""
    create_topics(kafka, 1)
    apps: list[Any] = []

    def kept(*arguments: Any) -> Any:
        apps.append(make_app(*arguments))
        return apps[0]

    monkeypatch.setattr("thalweg.streams.worker.make_app", kept)
    worker = Worker(Configuration(kafka=kafka), tmp_path / "state", until_idle=60)

    def crash() -> bool:
        if worker._assigned and not apps[0].crashed:
            asyncio.ensure_future(apps[0].crash(RuntimeError("lost its mind")))
        return False

    with pytest.raises(BrokerError, match="Faust ended: RuntimeError.*lost its mind"):
        worker.run(crash)


def test_a_topic_that_is_made_again_under_it_ends_the_worker(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the new one brings would be passed over, up to where the old one was read to."""
    monkeypatch.setattr("thalweg.streams.worker.TOPICS", 0.2)
    create_topics(kafka, 1)
    worker = Worker(Configuration(kafka=kafka), tmp_path / "state")
    labels, began = internal(kafka, "labels"), time.monotonic()
    made: list[str] = []

    def make_again() -> bool:
        if worker._assigned and not made:
            delete_topic(kafka, labels)
            made.extend(create_topics(kafka, 1))
        return time.monotonic() - began > 600

    with pytest.raises(StateError, match=f"{labels} was made again while the worker read it"):
        worker.run(make_again)
    assert made == [labels]


@pytest.mark.slow
def test_a_running_system_is_seen(kafka: Kafka, tmp_path: Path) -> None:
    """Each stage with clock, position and lag, ingest in a process apart with its raw partitions."""
    log = tmp_path / "funnel.parquet"
    simulate(log, 3_000, 5, days=9, users=60, items=90)
    live = Live(tmp_path / "live", load(log.with_suffix(".toml")), kafka)
    live.create()
    live.publish(log, close=True)
    one = ["worker", "--state", str(live.state), "--verbose"]
    processes = [live.start(*one, "--only", only) for only in ("ingest", "agents")]
    try:
        until = time.monotonic() + 600
        while True:
            assert all(process.poll() is None for process in processes) and time.monotonic() < until
            if worked_through(live.state):
                said = json.loads(inspected(live.state, "--json"))
                shown = inspected(live.state)
                if worked_through(live.state):  # all the while; who is elected anew has nothing to tell for a moment
                    break
            time.sleep(0.2)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        logged = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), logged
    stages = [stage for process in said["workers"] for stage in process["stages"]]
    assert sorted(stage["stage"] for stage in stages) == sorted(flow.stage for flow in FLOWS)
    assert all(stage["behind"] == 0 < stage["position"] for stage in stages)
    sources = [source for process in said["workers"] for source in process.get("ingest", {}).get("sources", ())]
    assert len(sources) == len(kafka.topics) and sum(source["position"] for source in sources) >= 3_000
    for name in (*(flow.stage for flow in FLOWS), *kafka.topics, "unacknowledged", "applied"):
        assert name in shown
    told = "".join(logged)
    assert all(word in told for word in ("elected", "opened", "assigned", "saved stage=attribution", "closed stage="))
    assert running(live.state) == []


def inspected(state: Path, *more: str) -> str:
    """What `thalweg state inspect` prints."""
    command = [*THALWEG, "state", "inspect", "--state", str(state), *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def worked_through(state: Path) -> bool:
    """Whether every stage and ingest say that they are through."""
    said = running(state)
    stages = [stage for process in said for stage in process["stages"]]
    ingests = [process["ingest"] for process in said if process.get("ingest", {}).get("idle")]
    clocks = {each["clock"] for each in (*stages, *ingests)}
    return len(stages) == len(FLOWS) and len(ingests) == 1 and len(clocks) == 1 and all(s["position"] for s in stages)
