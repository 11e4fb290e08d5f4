"""The small balancer: whose turn it is, what it may send again, and what it passes on."""

import asyncio

import pytest

from groundfault import wire
from groundfault.lab.targets.balancer import Answer, Balancer, parse_answer
from groundfault.vocabulary import Reason

HEAD = b"GET /lineup/7 HTTP/1.1\r\nHost: front\r\n\r\n"
URLS = tuple(f"http://127.0.0.1:{port}" for port in (1, 2, 3))


def raw(status=200, headers=(), body=b"{}"):
    lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers), f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def refused(reason):
    return parse_answer(raw(503, wire.annotations(reason, "saber")))


class Scripted(Balancer):
    """Asks nobody: each port has an answer, None for a connection that is refused."""

    def __init__(self, answers, *, knows=True, **services):
        super().__init__(services or {"saber": URLS[: len(answers)]}, default="saber", knows=knows)
        self.answers = dict(enumerate(answers, 1))
        self.asked = []

    async def _ask(self, instance, head):
        self.asked.append(instance.port)
        return self.answers[instance.port]

    def get(self, times=1, head=HEAD):
        return [int(asyncio.run(self.answer(head))[9:12]) for _ in range(times)]


OK = parse_answer(raw())
ERROR = parse_answer(raw(500))


def test_instances_are_asked_in_turn():
    balancer = Scripted([OK, OK, OK])
    assert balancer.get(6) == [200] * 6
    assert sorted(balancer.asked[:3]) == sorted(balancer.asked[3:]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        (None, True),
        (refused(Reason.QUEUE_WAIT), True),
        (refused(Reason.CONCURRENCY), True),
        (refused(Reason.DRAINING), True),
        (refused(Reason.DEADLINE), False),
        (refused(Reason.DEPENDENCY), False),
        (refused(Reason.CIRCUIT_OPEN), False),
        (parse_answer(raw(503)), False),
        (ERROR, False),
    ],
)
@pytest.mark.parametrize("knows", [True, False])
def test_what_is_sent_again_elsewhere(answer, again, knows):
    balancer = Scripted([answer, OK], knows=knows)
    statuses = balancer.get(2)
    bad = 502 if answer is None else answer.status
    assert sorted(statuses) == ([200, 200] if again and knows else sorted([200, bad]))


def test_who_drains_gets_nothing_more_until_somebody_else_answers_there():
    balancer = Scripted([refused(Reason.DRAINING), OK])
    balancer.get(4)
    assert balancer.asked.count(1) == 1

    first = balancer.instances()[0]
    balancer.answers[1] = None
    asyncio.run(balancer.check(first))
    balancer.answers[1] = OK
    asyncio.run(balancer.check(first))
    balancer.asked.clear()
    balancer.get(4)
    assert balancer.asked.count(1) == 2


def test_two_missed_health_checks_take_an_instance_out_and_one_answer_brings_it_back():
    balancer = Scripted([None, OK], knows=False)
    first = balancer.instances()[0]
    for usable in (True, False):
        asyncio.run(balancer.check(first))
        assert first.usable is usable
    assert balancer.get(4) == [200] * 4
    balancer.answers[1] = OK
    asyncio.run(balancer.check(first))
    assert first.usable


def test_retries_stay_within_the_budget():
    balancer = Scripted([None, None])
    balancer.get(100)
    assert len(balancer.asked) <= 100 * 1.1 + 10 + 1


def test_the_first_part_of_a_path_names_the_service():
    balancer = Scripted([OK, ERROR], lobby=URLS[:1], saber=URLS[1:2])
    assert balancer.get(1, b"GET /lobby/3 HTTP/1.1\r\n\r\n") == [200]
    assert balancer.get() == [500]


def test_an_answer_is_passed_on_without_what_concerns_one_connection_only():
    answer = parse_answer(raw(503, [("Connection", "close"), ("X-GroundFault", "handled")], b"no"))
    assert answer == Answer(
        503,
        {"connection": "close", "x-groundfault": "handled", "content-length": "2"},
        b"HTTP/1.1 503 X\r\nX-GroundFault: handled\r\nContent-Length: 2\r\n\r\nno",
    )


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", raw()[:-1], b"nonsense\r\n\r\n"])
def test_half_an_answer_is_none(data):
    with pytest.raises(ValueError, match="answer"):
        parse_answer(data)
