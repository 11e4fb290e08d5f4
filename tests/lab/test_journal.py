"""What a service writes and the runner reads along."""

import json
import os
import threading

from groundfault.events import CircuitChanged, RequestSeen
from groundfault.lab.journal import Journal, Reader
from groundfault.testing import ManualClock
from groundfault.vocabulary import Criticality, Reason, State


def seen(route="/x"):
    return RequestSeen("saber", route, Reason.QUEUE_WAIT, Criticality.CRITICAL, 0.25, "tcp_info")


def test_an_event_becomes_a_line_with_time_and_name(tmp_path):
    tripped = CircuitChanged("grouper", "get", State.CLOSED, State.OPEN, 20, 21, 5.0)
    Journal(tmp_path, "topps", ManualClock(12.5))(tripped)
    (row,) = Reader(tmp_path, "topps-*.jsonl").new()
    assert row["t"] == 12.5
    assert row["event"] == "circuit.open"
    assert row["warning"] is True
    assert row["pid"] == os.getpid()
    assert (row["by"], row["resource"], row["old"], row["new"]) == ("topps", "grouper", "closed", "open")


def test_enums_are_written_as_their_values(tmp_path):
    Journal(tmp_path, "saber")(seen())
    (row,) = Reader(tmp_path, "*.jsonl").new()
    assert row["reason"] == "queue-wait"


def test_a_forked_worker_writes_a_file_of_its_own(tmp_path):
    journal = Journal(tmp_path, "saber")
    journal(seen())
    child = os.fork()
    if child == 0:
        journal(seen())
        os._exit(0)
    os.waitpid(child, 0)
    assert {path.name for path in tmp_path.iterdir()} == {f"saber-{os.getpid()}.jsonl", f"saber-{child}.jsonl"}
    assert len(list(Reader(tmp_path, "*.jsonl").new())) == 2


def test_threads_do_not_tear_each_others_lines(tmp_path):
    journal = Journal(tmp_path, "saber")
    routes = [f"/{number}" * 50 for number in range(8)]

    def write(route):
        for _ in range(100):
            journal(seen(route))

    threads = [threading.Thread(target=write, args=(route,)) for route in routes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = list(Reader(tmp_path, "*.jsonl").new())
    assert sorted(row["route"] for row in rows) == sorted(routes * 100)


def test_a_reader_sees_each_line_once_and_no_half_line(tmp_path):
    reader = Reader(tmp_path, "*.jsonl")
    assert list(reader.new()) == []
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": 2}\n{"n"')
    assert [row["n"] for row in reader.new()] == [1, 2]
    with path.open("a") as file:
        file.write(": 3}\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"n": 4}) + "\n")
    assert [row["n"] for row in reader.new()] == [3, 4]
    assert list(reader.new()) == []
