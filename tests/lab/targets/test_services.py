"""The services of the targets, without their servers."""

import threading

import pytest
import requests

from groundfault.errors import ShedError
from groundfault.integrations.requests import CircuitOpenError, GroundFaultAdapter
from groundfault.lab.journal import Reader
from groundfault.lab.parts import Phase
from groundfault.lab.targets import caching, hop, picking, serving
from groundfault.lab.targets.part import Part
from groundfault.lab.targets.serving import NoSuchPageError, application, guarded
from groundfault.retries import RetryBudget
from groundfault.vocabulary import Reason


class Scripted:
    """A call that ends as it is told, once for each time it is made."""

    def __init__(self, *endings):
        self.endings = list(endings)
        self.made = 0

    def __call__(self, _path):
        self.made += 1
        ending = self.endings.pop(0)
        if isinstance(ending, Exception):
            raise ending
        return ending


def shed(reason=Reason.QUEUE_WAIT):
    class AnsweredError(ShedError, requests.HTTPError):
        """As the requests adapter raises it."""

    return AnsweredError("saber", "get", reason)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_part_survives_its_way_to_the_process(part, phase, monkeypatch):
    told = part(phase, callees={"saber": ("http://127.0.0.1:1", "http://127.0.0.1:2")}, slots=2, callee="saber")
    for name, value in told.environment().items():
        monkeypatch.setenv(name, value)
    assert Part.from_environment() == told
    assert told.url("saber") == "http://127.0.0.1:1"
    assert told.number("slots") == 2.0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoSuchPageError(), 404),
        (requests.ConnectionError(), 502),
        (requests.ReadTimeout(), 502),
        (ShedError("saber", "get", Reason.QUEUE_WAIT), 502),
        (ConnectionRefusedError(), 502),
        (None, 200),
    ],
)
def test_what_goes_wrong_becomes_a_status(part, ask, error, status):
    def answer(_path):
        if error is not None:
            raise error
        return {"ok": True}

    assert ask(application(part(), answer), "/lineup/1")[0] == status


def test_health_is_told_with_the_token_whatever_the_service_does(part, ask):
    status, _, body = ask(application(part(), Scripted()), "/healthz")
    assert (status, body) == (200, {"service": "saber", "token": "t"})


@pytest.mark.parametrize("phase", list(Phase))
def test_every_variant_counts_its_answers_at_the_door(part, ask, tmp_path, phase):
    app = guarded(application(part(phase), Scripted({"ok": True}, requests.ConnectionError())), part(phase))
    for path in ("/a", "/healthz", "/b"):
        ask(app, path)
    rows = [row for row in Reader(tmp_path, "door-*.jsonl").new() if row["event"] == "door"]
    assert [(row["by"], row["status"]) for row in rows] == [("saber", 200), ("saber", 502)]
    assert all(row["took_s"] >= 0 for row in rows)


@pytest.mark.parametrize(
    ("endings", "made", "answered"),
    [
        ([1], 1, True),
        ([requests.ReadTimeout(), 1], 2, True),
        ([requests.ReadTimeout(), shed(), 1], 3, True),
        ([requests.ReadTimeout()] * 3, 3, False),
    ],
)
def test_without_a_rule_everything_is_tried_three_times(endings, made, answered):
    once = Scripted(*endings)
    ask = hop.insisting(once, 3)
    if answered:
        assert ask("/lineup/1") == 1
    else:
        with pytest.raises(requests.ReadTimeout):
            ask("/lineup/1")
    assert once.made == made


@pytest.mark.parametrize(
    ("endings", "made"),
    [
        ([1], 1),
        ([shed(), 1], 2),
        ([shed(), shed(), 1], 2),
        ([shed(Reason.DEPENDENCY), 1], 1),
        ([requests.ReadTimeout(), 1], 1),
    ],
)
def test_with_the_rule_only_what_the_callee_refused_is_tried_and_only_once(endings, made):
    once = Scripted(*endings)
    ask = hop.within_budget(once, RetryBudget())
    try:
        ask("/lineup/1")
    except requests.RequestException:
        assert endings[made - 1] != 1
    assert once.made == made


def test_with_the_budget_a_service_that_refuses_everything_is_asked_a_tenth_more():
    once = Scripted(*[shed() for _ in range(300)])
    ask = hop.within_budget(once, RetryBudget(minimum_per_s=0.0))
    for _ in range(100):
        with pytest.raises(ShedError):
            ask("/lineup/1")
    assert 100 < once.made <= 110


def test_a_cache_starts_full_and_is_empty_once_cleared():
    cache = caching.Cache(keys=16, live=8)
    assert [key for key in range(16) if cache.get(key, 0) is None] == [0, 8]

    assert cache.get(3, 1) is None
    cache.keep(3, "new")
    cache.keep(8, "live")
    assert (cache.get(3, 1), cache.get(8, 1)) == ("new", None)
    assert cache.get(3, 2) is None


def test_clearing_happens_once_for_all_threads():
    cache = caching.Cache(keys=64, live=64)
    cache.get(1, 1)
    cache.keep(1, "new")
    threads = [threading.Thread(target=cache.get, args=(2, 1)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get(1, 1) == "new"


class Instances:
    """Stands for the session: each base URL has what it answers with, an error or a value."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def get(self, url):
        base = url.rpartition("/lineup")[0]
        self.asked.append(base)
        ending = self.answers[base]
        if isinstance(ending, Exception):
            raise ending
        response = requests.Response()
        response.status_code = 200
        response._content = ending
        return response

    def close(self):
        """Have nothing to close."""


def picked(part, answers, variant=Phase.GROUNDFAULT):
    told = part(
        variant,
        callees={"saber": tuple(answers)},
        timeout_s=0.4,
        minimum_volume_per_s=0.5,
        handled_patience_s=2.0,
    )
    one = picking.Picked(told, RetryBudget() if told.annotated else None)
    one._session.close()
    one._session = Instances(answers)
    return one


URLS = ("http://127.0.0.1:1", "http://127.0.0.1:2")


def open_circuit():
    return CircuitOpenError("saber-0", "get", 1.0)


@pytest.mark.parametrize("ending", [open_circuit(), shed()], ids=["open circuit", "shed"])
def test_another_instance_is_picked_for_one_that_is_out_or_refused(part, ending):
    one = picked(part, {URLS[0]: ending, URLS[1]: b'{"n": 1}'})
    assert [one.get("/lineup/1") for _ in range(10)] == [{"n": 1}] * 10


@pytest.mark.parametrize("ending", [requests.ReadTimeout(), requests.HTTPError(), shed(Reason.DEPENDENCY)])
def test_what_may_have_been_done_is_not_asked_of_another(part, ending):
    one = picked(part, dict.fromkeys(URLS, ending))
    with pytest.raises(type(ending)):
        one.get("/lineup/1")
    assert len(one._session.asked) == 1


@pytest.mark.parametrize("variant", [Phase.PLAIN_503, Phase.UNPROTECTED])
def test_without_annotations_there_is_no_second_try(part, variant):
    one = picked(part, dict.fromkeys(URLS, shed()), variant)
    with pytest.raises(ShedError):
        one.get("/lineup/1")
    assert len(one._session.asked) == 1


def test_if_all_are_out_the_last_refusal_is_raised(part):
    one = picked(part, dict.fromkeys(URLS, open_circuit()))
    with pytest.raises(type(open_circuit())):
        one.get("/lineup/1")
    assert sorted(one._session.asked) == sorted(URLS)


@pytest.mark.parametrize(("phase", "guards"), [(Phase.UNPROTECTED, False), (Phase.GROUNDFAULT, True)])
def test_only_the_protected_variants_call_through_commands(part, phase, guards):
    told = part(phase, service="topps", callees={"saber": URLS})
    with serving.session_for(told, "saber", timeout_s=0.9) as session:
        for url in URLS:
            assert isinstance(session.get_adapter(url + "/lineup/1"), GroundFaultAdapter) is guards
