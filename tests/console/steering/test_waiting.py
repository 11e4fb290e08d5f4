"""A store that hangs costs one thread and no more, and forks share nothing; all of it through the console's door."""

import json
import os
import threading

import pytest

from groundfault import wire
from groundfault.console.answering import LARGEST_BODY, Console, RefusedError
from groundfault.console.asking import Asked
from groundfault.console.guarding import Guard
from groundfault.console.steering import Steering
from groundfault.settings.memory import MemoryStore
from groundfault.settings.opening import open_store
from groundfault.settings.store import Change

TOKEN = "correct-horse-battery"  # noqa: S105  of the tests alone
BODY = {"reason": "r", "based_on": "1", "changes": [{"scope": "topps", "name": "timeout_s", "value": 2}]}


class Hanging(MemoryStore):
    """A store that hangs while ``held`` is set to wait."""

    def __init__(self):
        super().__init__({"topps": {"timeout_s": 1}})
        self.let_go = threading.Event()
        self.let_go.set()
        self.inside = 0

    def load(self, known):
        self.inside += 1
        assert self.let_go.wait(30)
        return super().load(known)


@pytest.fixture
def hanging():
    """Return a store that hangs until the test is over."""
    store = Hanging()
    store.let_go.clear()
    yield store
    store.let_go.set()


def refusal(ask):
    with pytest.raises(RefusedError) as caught:
        ask()
    return caught.value


def steering_threads():
    return [each for each in threading.enumerate() if each.name == "groundfault-steering"]


def test_a_store_that_hangs_is_told_in_time_and_asked_once(hanging):
    steering = Steering(hanging, reports=list, limit_s=0.1)
    first = refusal(lambda: steering.change(BODY))
    assert first.status == 503
    assert first.lines[0].startswith("memory has not answered within 0.1 s")
    for _ in range(20):
        again = refusal(lambda: steering.shown(""))
        assert (again.status, again.lines[0][:5]) == (503, "busy:")
    assert hanging.inside == 1
    assert len(steering_threads()) == 1


def test_what_nobody_waits_for_any_more_is_not_written(hanging):
    steering = Steering(hanging, reports=list, limit_s=0.1)
    refusal(lambda: steering.change(BODY))
    hanging.let_go.set()
    for thread in steering_threads():
        thread.join(10)
    assert hanging.history() == []
    assert steering.change(BODY)["version"] == "2"  # and it works again


def test_many_who_ask_at_once_get_their_turns_or_are_sent_away(hanging):
    steering = Steering(hanging, reports=list, limit_s=20.0)
    answers = []

    def ask():
        try:
            answers.append(steering.shown("")["version"])
        except RefusedError as refused:
            answers.append(refused.status)

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for each in threads:
        each.start()
    while len(answers) < 13:  # one works, sixteen wait, and thirteen are too many
        threading.Event().wait(0.01)
    assert set(answers) == {503}
    hanging.let_go.set()
    for each in threads:
        each.join(20)
    assert sorted(map(str, answers)) == ["1"] * 17 + ["503"] * 13


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_child_of_a_fork_steers_with_connections_of_its_own(tmp_path, kind):
    url = f"sqlite:///{tmp_path}/settings.db"
    store = MemoryStore() if kind == "memory" else open_store(url)
    base = "1" if kind == "memory" else "0"
    store.write([Change("topps", "timeout_s", 1)], reason="r", actor="a", based_on=base)
    steering = Steering(store, reports=list)
    version = steering.shown("")["version"]
    steering._turns._free.acquire()  # as if the fork came while somebody's turn was under way
    child = os.fork()
    if child == 0:  # pragma: no cover  coverage does not see it
        code = 1
        try:
            code = 0 if steering.change({**BODY, "based_on": version})["version"] != version else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    steering._turns._free.release()
    written = steering.shown("")["version"] != version
    assert written == (kind == "sqlite")
    steering.close()


# --- through the console ----------------------------------------------------------------------------------------------


@pytest.fixture
def console():
    """Return a console that steers a store in memory, and the store."""
    store = MemoryStore({"topps": {"timeout_s": 1}})
    steers = Steering(store, reports=list)
    return Console(lambda: b"", guard=Guard(token=TOKEN), steers=steers), store


def asked(body, path="/settings/change", **headers):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    usual = {"host": "localhost:1", "content-type": "application/json", wire.TOKEN.lower(): TOKEN}
    return Asked("POST", path, {**usual, **headers}, data)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 100_000, 400),
        (b'{"reason": ' + b"[" * 900 + b"]" * 900 + b"}", 400),
        (b"not json", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (None, 413),
        (b'{"changes": "' + b"x" * (LARGEST_BODY - 20) + b'"}', 400),
        (json.dumps(BODY).encode().replace(b": 2}", b": NaN}"), 422),
        (json.dumps(BODY).encode().replace(b": 2}", b": 1e999}"), 422),
        (json.dumps(BODY).encode().replace(b": 2}", b": " + b"9" * 5000 + b"}"), 400),
    ],
)
def test_hostile_json_is_refused_and_nothing_is_written(console, body, status):
    it, store = console
    answer = it.answer(asked(body))
    assert answer.status == status
    assert json.loads(answer.body)["errors"]
    assert store.history() == []


def test_a_preview_shows_what_is_made_of_a_key_that_is_said_twice(console):
    it, store = console
    body = json.dumps(BODY).encode().replace(b'"value": 2', b'"value": 2, "value": 3')
    preview = it.answer(asked(body, "/settings/preview"))
    if preview.status == 200:
        (seen,) = json.loads(preview.body)["differences"]
        done = json.loads(it.answer(asked(body)).body)
        assert done["differences"] == [seen]
        assert store.load(None).entries[0].value == seen["to"]
    else:
        assert store.history() == []


def test_a_change_goes_through_the_door_with_the_token_alone(console):
    it, store = console
    assert it.answer(asked(BODY, **{wire.TOKEN.lower(): "wrong"})).status == 403
    assert it.answer(asked(BODY, origin="https://evil.example")).status == 403
    assert store.history() == []
    answer = it.answer(asked(BODY, origin="http://localhost:1"))
    assert (answer.status, json.loads(answer.body)["version"]) == (200, "2")
    shown = json.loads(it.answer(Asked("GET", "/settings.json", {"host": "localhost"})).body)
    assert (shown["steers"], shown["version"]) == (True, "2")
