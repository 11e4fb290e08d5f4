"""A recorder's link to its hub: there if the environment names one, silent in its turn only, and never in the way."""

import pytest

from groundfault.console import _link
from groundfault.console._link import HUB, Link
from groundfault.console.pushing import PushStatus
from groundfault.errors import SettingsError


class Pushing:
    """Stands in for a pusher, and remembers what it was told."""

    def __init__(self):
        self.told = []
        self.last_error = None

    def start(self):
        self.told.append("start")

    def stop(self):
        self.told.append("stop")

    def status(self):
        return PushStatus(
            url="http://hub:9733", running=True, sent=1, failed=1, last_error=self.last_error, last_sent_at=1000.0
        )


@pytest.fixture
def pushers(monkeypatch):
    """Return the pushers that are made, each with the report that it was made with."""
    made = []

    def push(*, report):
        made.append((Pushing(), report))
        return made[-1][0]

    monkeypatch.setattr(_link, "push", push)
    monkeypatch.delenv(HUB, raising=False)
    return made


def report():
    return b""


@pytest.mark.parametrize("named", [None, ""])
def test_without_a_hub_in_the_environment_nothing_is_pushed_and_nothing_is_wrong(pushers, monkeypatch, named):
    if named is not None:
        monkeypatch.setenv(HUB, named)
    link = Link(report)
    link.want()
    link.stand(up=True)
    link.stand(up=False)
    assert (pushers, link.troubles(1000.0)) == ([], [])


def test_it_pushes_the_recorders_report_while_it_is_this_processs_turn(pushers, monkeypatch):
    monkeypatch.setenv(HUB, "http://hub:9733")
    link = Link(report)
    assert pushers == []
    link.want()
    link.want()
    ((pusher, given),) = pushers
    assert given is report
    assert pusher.told == []
    link.stand(up=True)
    link.stand(up=False)
    assert pusher.told == ["start", "stop"]


def test_what_is_wrong_with_the_hub_is_told_until_it_is_right_again(pushers, monkeypatch):
    monkeypatch.setenv(HUB, "http://hub:9733")
    link = Link(report)
    link.want()
    assert link.troubles(1001.0) == []
    pushers[0][0].last_error = "it answers 503"
    assert link.troubles(1007.0) == ["the hub at http://hub:9733 has not taken a report for 7 s: it answers 503"]


def test_a_hub_that_is_named_wrongly_raises_nothing_is_said_and_can_be_mended(pushers, monkeypatch):
    right = _link.push

    def wrong(*, report):
        raise SettingsError("no address")

    monkeypatch.setenv(HUB, "nonsense")
    monkeypatch.setattr(_link, "push", wrong)
    link = Link(report)
    link.want()
    link.stand(up=True)
    assert link.troubles(1000.0) == ["nothing is pushed to a hub: no address"]
    monkeypatch.setattr(_link, "push", right)
    link.want()
    assert link.troubles(1001.0) == []
    assert len(pushers) == 1


def test_the_real_pusher_refuses_an_address_that_is_none(monkeypatch):
    monkeypatch.setenv(HUB, "nonsense")
    link = Link(report)
    link.want()
    (said,) = link.troubles(1000.0)
    assert said.startswith("nothing is pushed to a hub: ")
