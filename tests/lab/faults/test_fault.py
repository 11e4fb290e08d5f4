import pytest

from groundfault.lab.faults.control import Board
from groundfault.lab.faults.fault import BodyCount, Fault, FaultError, Kind
from groundfault.lab.faults.proxy import check_host

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"


@pytest.mark.parametrize("kind", list(Kind))
def test_a_fault_survives_the_way_over_the_control_line(kind):
    fault = Fault(kind=kind, delay_s=0.5, jitter_s=0.1, after_bytes=7, bytes_per_s=99.0, share=0.25)
    assert Fault.from_dict(fault.as_dict()) == fault


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"kind": "flood"}, "kind must be one of none, latency"),
        ({"kind": "latency", "delay": 1}, "no field 'delay'"),
        ({"delay_s": -1}, "delay_s must be between 0 and 3600, not -1"),
        ({"share": 1.5}, "share must be between 0 and 1, not 1.5"),
        ({"share": True}, "share must be a number"),
        ({"bytes_per_s": 0}, "bytes_per_s must be between 1"),
        ({"delay_s": float("nan")}, "delay_s must be a number"),
        ({"after_bytes": "3"}, "after_bytes must be a number"),
    ],
)
def test_what_is_no_fault_is_refused_with_its_bound(said, words):
    with pytest.raises(FaultError, match=words):
        Fault.from_dict(said)


@pytest.mark.parametrize(("draw", "delay_s"), [(0.0, 0.2), (0.5, 0.3), (1.0, 0.4)])
def test_jitter_goes_to_both_sides_of_the_delay(draw, delay_s):
    assert Fault(kind=Kind.LATENCY, delay_s=0.3, jitter_s=0.1).delay(draw) == pytest.approx(delay_s)


def test_no_delay_is_negative():
    assert Fault(kind=Kind.LATENCY, delay_s=0.1, jitter_s=0.5).delay(0.0) == 0.0


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 1000])
@pytest.mark.parametrize("after", [0, 4, 10])
def test_only_so_much_of_a_body_goes_through_however_it_arrives(size, after):
    count, passed = BodyCount(after), b""
    for at in range(0, len(ANSWER), size):
        piece = ANSWER[at : at + size]
        through = count.through(piece)
        passed += piece[:through]
        if through < len(piece):
            break
    assert passed == ANSWER[: len(ANSWER) - 10 + after]


def test_what_has_no_head_is_body_after_a_while():
    count = BodyCount(100)
    passed = sum(count.through(b"x" * 8192) for _ in range(20))
    assert passed < 80_000


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_may_always_be_a_target(host):
    assert check_host(host, anywhere=False) == host


@pytest.mark.parametrize("host", ["10.0.0.1", "192.0.2.1", "example.org", "8.8.8.8"])
def test_anything_else_only_if_told(host):
    with pytest.raises(FaultError, match="loopback"):
        check_host(host, anywhere=False)
    assert check_host(host, anywhere=True) == host
    with pytest.raises(FaultError, match="loopback"):
        Board(host=host)
