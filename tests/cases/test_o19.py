"""O19, live: where a position and a log no longer agree, nothing is passed over in silence.

(a) a topic made again, raw (test_by_topic) or between the stages; (b) messages that expired unread, raw or between the
stages; (c) offsets with holes, as transactions leave them; (d) killed while the first block is still being handled and
others are done; (e) a block that takes longer than the group's patience; (f) a state beyond the end of its log.
Whatever is refused is refused in one line, with status 1.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import TopicPartition

from tests.brokers import ApacheKafka, delete_topic, new_kafka
from tests.cases.funnel_by_hand import draw_log
from tests.cases.log_files import BASE, line_of, small
from tests.cases.topics import Topics
from tests.live import Live
from thalweg.streams.configuration import Kafka
from thalweg.streams.ingest import IngestError
from thalweg.streams.ingester import Ingester
from thalweg.streams.kafka import create_topics, end_of, internal, make_admin, make_producer
from thalweg.streams.state_directory import StateDirectory
from thalweg.streams.status import running
from thalweg.streams.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.broker]


def click(n: int) -> bytes:
    return line_of({"event_id": f"c{n}", "ts": BASE + n, "user_id": "u1", "request_id": f"r{n}", "item_id": "A"})


def worked(folder: Path, brokers: str, **settings: object) -> Live:
    """A system that has worked through a small log."""
    live = Live(folder, small(), msgspec.structs.replace(new_kafka(brokers), **settings))
    live.create()
    log = folder / "log.jsonl"
    log.write_bytes(b"".join(line_of(row) + b"\n" for row in draw_log()[:300]))
    live.publish(log, close=True)
    live.worker()
    return live


@pytest.fixture(scope="module")
def live(brokers: str, tmp_path_factory: pytest.TempPathFactory) -> Live:
    return worked(tmp_path_factory.mktemp("o19"), brokers)


def expire(kafka: Kafka, topic: str, before: int) -> None:
    """Delete the messages below an offset, as retention does."""
    admin = make_admin(kafka)
    for future in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        future.result(20)


def refused(live: Live, state: Path, *words: str) -> None:
    """A worker on this state ends with status 1 and one line that has the words."""
    said = live.run("worker", "--state", str(state), status=1)
    [line] = [line for line in said.splitlines() if line.startswith("thalweg: ")]
    assert all(word in line for word in words), said
    assert "Traceback" not in said


def test_c_offsets_with_holes(brokers: str, tmp_path: Path) -> None:
    """Five transactions of one message each: every other offset is the broker's own. All are read, the end is seen."""
    made = Topics(tmp_path, small(), new_kafka(brokers))
    producer = make_producer(made.kafka, **{"transactional.id": made.kafka.application})
    producer.init_transactions(20)
    for n in range(5):
        producer.begin_transaction()
        producer.produce(made.topic("clicks"), click(n), partition=0)
        producer.commit_transaction(20)
    made.ingest()
    assert made.ingest() == 0, "opened again, at the end at once"
    found = made.stages()
    assert found.count("click", "read") == 5
    assert found.marks == [9], "behind the last message, at 8"
    made.send(clicks=[click(5)])
    assert made.ingest() > 0
    assert made.stages("later").count("click", "read") == 6


def test_f_a_state_beyond_the_end_of_its_log(live: Live, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(live.state, state)
    with StateDirectory(state, live.configuration) as opened:
        stands = opened.calibration.position + 500
        opened.calibration.skip(stands)
        opened.checkpoint()
    outcomes = internal(live.configuration.kafka, "outcomes")
    end = end_of(live.configuration.kafka, outcomes, 0)
    refused(
        live, state, f"{outcomes}/0: the state of calibration stands at {stands}, the log ends at {end}:", "--state"
    )


def test_a_a_topic_between_the_stages_made_again(live: Live, tmp_path: Path) -> None:
    """The state knows the topic's id; the last test of this system, for it is broken then."""
    kafka, state = live.configuration.kafka, tmp_path / "state"
    shutil.copytree(live.state, state)
    labels = internal(kafka, "labels")
    delete_topic(kafka, labels)
    create_topics(kafka, 1)
    refused(live, state, f"{labels}/0: the state of feedback stands at", "another topic of that name", "--state")


def test_b_raw_messages_that_expired_unread(apache: ApacheKafka, tmp_path: Path) -> None:
    """Committed 100, the log begins at 400, ends at 1,000: refused with the gap; who begins now reads from 400."""
    made = Topics(tmp_path, small(), new_kafka(apache.address))
    made.send(clicks=[click(n) for n in range(100)])
    assert made.ingest() == 100
    made.send(clicks=[click(n) for n in range(100, 1_000)])
    expire(made.kafka, made.topic("clicks"), 400)
    with pytest.raises(IngestError, match="begins at offset 400, the blocks end at 100: 300 messages were deleted"):
        Ingester(made.configuration).run(lambda: False)
    fresh = Topics(
        tmp_path / "new", small(), msgspec.structs.replace(new_kafka(apache.address), topics=made.kafka.topics)
    )
    fresh.ingest()
    assert fresh.stages().count("click", "read") == 600


def test_b_blocks_that_expired_unread(apache: ApacheKafka, tmp_path: Path) -> None:
    """What a stage has read may go; what it has not read is missed, with the number."""
    live = worked(tmp_path, apache.address, block_rows=50)
    kafka, events = live.configuration.kafka, internal(live.configuration.kafka, "events")

    def stands() -> int:
        with StateDirectory(live.state, read_only=True) as state:
            return state.attribution[0].position

    expire(kafka, events, stands())
    live.worker()
    more = tmp_path / "more.jsonl"
    more.write_bytes(b"".join(line_of(row) + b"\n" for row in draw_log()[300:]))
    live.publish(more)
    live.run("worker", "--only", "ingest", "--until-idle", "1")
    at = stands()
    expire(kafka, events, at + 3)
    refused(live, live.state, f"{events}/0: the log begins at {at + 3}, the state of attribution stands at {at}:")


SLOW = """
import sys, time
from thalweg.streams import worker
from thalweg.streams.post import Post
from thalweg.streams.cli import main

take, told = Post.take, []
worker.STOP_TIMEOUT = 2

def slow(self, *message):
    if self.name == "{stage}" and len(told) < {blocks}:
        told.append(message)
        time.sleep({seconds})
        print("slept", file=sys.stderr)
    take(self, *message)

Post.take = slow
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


def slowly(live: Live, stage: str, blocks: int, seconds: float) -> Live:
    """The same system, of which a stage sleeps over its first blocks."""
    program = live.folder / "slow.py"
    program.write_text(SLOW.format(stage=stage, blocks=blocks, seconds=seconds))
    slow = Live(live.folder, live.configuration, live.configuration.kafka)
    slow.command = lambda *words: [sys.executable, str(program), *words, "--config", str(slow.file)]  # type: ignore[method-assign]
    return slow


def test_d_killed_while_the_first_block_is_being_handled(brokers: str, tmp_path: Path) -> None:
    """A stage is stuck in its first block; those beside it go on, and are committed. Stopped, the worker ends within a
    bound and says who was left; killed, and started again, it ends as a replay does."""
    live = Live(tmp_path, small(), msgspec.structs.replace(new_kafka(brokers), block_rows=20))
    live.create()
    lines = [line_of(row) + b"\n" for row in draw_log()[:300]]
    first, log = tmp_path / "first.jsonl", tmp_path / "log.jsonl"
    first.write_bytes(b"".join(lines[:30]))
    log.write_bytes(b"".join(lines))
    live.publish(first)
    live.worker()

    def positions() -> tuple[int, int]:
        """Of attribution and feedback, as committed."""
        with StateDirectory(live.state, read_only=True) as state:
            return state.attribution[0].position, state.feedback.position

    def stuck() -> subprocess.Popen[str]:
        """A worker of which feedback is stuck, and attribution has committed since; its status says so all the time."""
        before = positions()[0]
        worker = slowly(live, "feedback", 1, 600).start("worker", "--state", str(live.state), "--verbose")
        until = time.monotonic() + 600
        while positions()[0] <= before or not any(
            said["stage"] == "attribution" and said["position"] == positions()[0]
            for process in running(live.state) for said in process["stages"]
        ):  # fmt: skip
            assert worker.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        return worker

    _, at = positions()
    live.publish(log)
    worker = stuck()
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=600)
    assert worker.returncode == 0 and "left feedback at work" in said, said
    assert positions()[1] == at
    live.publish(log, close=True)  # once more: of the events every one is known
    worker = stuck()
    worker.kill()
    worker.communicate()
    assert positions()[1] == at
    live.worker()
    live.run("replay", str(log), "--state", str(tmp_path / "replayed"), "--close")
    assert verify(tmp_path / "replayed", live.state).equal


def test_e_a_block_may_take_longer_than_the_session(brokers: str, tmp_path: Path) -> None:
    """Each of the first two takes longer than the group waits for a sign of life: not thrown out, not read again."""
    live = Live(tmp_path, small(), msgspec.structs.replace(new_kafka(brokers), block_rows=50))
    seconds = int(live.configuration.kafka.session_timeout) / 1000 + 1
    live.create()
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(line_of(row) + b"\n" for row in draw_log()[:300]))
    live.publish(log, close=True)
    began = time.monotonic()
    said = slowly(live, "attribution", 2, seconds).worker()
    assert said.count("slept") == 2 and time.monotonic() - began > 2 * seconds
    assert said.count("thalweg.worker assigned") == 1, said
    with StateDirectory(live.state, read_only=True) as state:
        assert sum(terms["applied"] for terms in state.attribution[0].books().values()) == 300
