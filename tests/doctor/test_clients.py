"""`groundfault doctor`: HTTP clients and the order of middleware, as found after an import."""

import sys

import pytest

from groundfault.doctor import _imported, clients
from groundfault.doctor.child import ChildError, ask
from groundfault.doctor.clients import judge_clients, look_at_modules
from groundfault.doctor.standing import judge_standing

# --- what is judged ---------------------------------------------------------------------------------------------------

RETRY = {
    "own": "",
    "implied": False,
    "total": 3,
    "status": None,
    "statuses": [],
    "after": True,
    "jitter": 0.0,
    "backoff": 0.0,
}


def session(guarded=False, **changes):
    mount = {"prefix": "http://", "guarded": guarded, "adapter": "a.A", "retry": {**RETRY, **changes}}
    return {
        "failures": [],
        "managers": [],
        "transports": [],
        "sessions": [{"name": "s", "type": "S", "mounts": [mount]}],
    }


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"total": 0}, "ok", "retries no 503"),
        ({"total": False}, "ok", "retries no 503"),
        ({"total": None}, "ok", "retries no 503"),  # urllib3 obeys the header only if there is a total
        ({"after": False}, "ok", "retries no 503"),
        ({"status": 0}, "ok", "retries no 503"),
        ({}, "warning", "up to 4 requests of one, if a 503 carries that header"),
        ({"status": 1}, "warning", "up to 2 requests"),
        ({"statuses": [500, 502]}, "warning", "if a 503 carries that header"),
        ({"statuses": [503]}, "warning", "status_forcelist 503: up to 4 requests of one"),
        ({"statuses": [503], "total": None, "status": 2}, "warning", "up to 3 requests"),
        ({"statuses": [503], "total": None}, "warning", "without end"),
        ({"statuses": [503], "total": 0}, "ok", "retries no 503"),
        ({"own": "shop.ShedRetry", "statuses": [503]}, "ok", "only it knows"),
    ],
)
def test_retries_of_a_session(changes, verdict, words):
    finding, *_ = judge_clients(session(**changes))
    assert (finding.verdict, finding.where) == (verdict, "s")
    assert words in finding.seen


def test_retries_below_a_command_are_said_to_hide_in_one_call():
    (finding,) = judge_clients(session(guarded=True, statuses=[503]))
    assert finding.seen.endswith("all inside one call of the command")
    (finding,) = judge_clients(session(guarded=True, total=0))
    assert finding.seen == "retries no 503; GroundFaultAdapter for http://"


def test_a_jitter_keeps_retries_out_of_step():
    (even,), (uneven,) = judge_clients(session(statuses=[503])), judge_clients(session(statuses=[503], jitter=0.1))
    assert "in step" in even.why
    assert "in step" not in uneven.why


def test_what_is_said_alike_of_things_without_names_is_said_once():
    facts = session(statuses=[503])
    facts["sessions"] = [{**facts["sessions"][0], "name": ""}] * 3
    (finding,) = judge_clients(facts)
    assert finding.where == "a S without a name in a module"


@pytest.mark.parametrize(
    ("app", "verdict", "words"),
    [
        ({"chain": ["FastAPI"], "middleware": ["shedder", "CORS"]}, "ok", "outermost: LoadShedder > CORS > FastAPI"),
        ({"chain": ["FastAPI"], "middleware": ["CORS", "shedder"]}, "warning", "stands behind CORS"),
        ({"chain": ["Proxied", "FastAPI"], "middleware": ["shedder"]}, "warning", "stands behind Proxied"),
        ({"chain": ["shedder", "FastAPI"], "middleware": []}, "warning", "around the whole of FastAPI"),
        ({"chain": ["FastAPI"], "middleware": ["shedder", "shedder"]}, "warning", "2 load shedders"),
        ({"chain": ["FastAPI"], "middleware": []}, "warning", "no load shedder"),
        ({"chain": ["shedder", "Flask"], "middleware": None}, "ok", "outermost"),
        ({"chain": ["Compressor", "shedder", "Flask"], "middleware": None}, "warning", "stands behind Compressor"),
        ({"chain": ["ProxyFix", "shedder", "Flask"], "middleware": None}, "ok", "> LoadShedder > Flask"),
        ({"chain": ["DispatcherMiddleware", "shedder", "Flask"], "middleware": None}, "ok", "> LoadShedder > Flask"),
        ({"chain": ["Litestar"], "middleware": None, "elsewhere": True}, "ok", "not visible"),
    ],
)
def test_the_order_of_middleware(app, verdict, words):
    finding = judge_standing({"target": "shop:app", "elsewhere": False, **app})
    assert (finding.verdict, finding.where) == (verdict, "shop:app")
    assert words in finding.seen


# --- what is found ----------------------------------------------------------------------------------------------------

SHOP = """
import requests, urllib3, httpx
from flask import Flask
from requests.adapters import HTTPAdapter
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from urllib3 import Retry
from werkzeug.local import LocalProxy
from werkzeug.middleware.proxy_fix import ProxyFix
from groundfault import LoadShedder, WSGILoadShedder
from groundfault.integrations.flask import LoadShedder as FlaskShedder
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.integrations.urllib3 import GroundFaultPoolManager

class Own(Retry):
    def is_retry(self, *_, **__):
        return False

class Client:
    def __init__(self):
        self.session = requests.Session()
        self.session.mount("http://", HTTPAdapter(max_retries=Own(2)))

def nobody():
    raise RuntimeError("its turn has not come")

later = LocalProxy(nobody)
plain = requests.Session()
guarded = requests.Session()
guarded.mount("http://saber/", GroundFaultAdapter("doctors-saber"))
retrying = requests.Session()
retrying.mount("http://", HTTPAdapter(max_retries=Retry(3, status_forcelist=[503])))
held = Client()
pool = urllib3.PoolManager()
saber = GroundFaultPoolManager("doctors-pool")
client = httpx.Client(transport=httpx.HTTPTransport(retries=2))

starlette = Starlette()
starlette.add_middleware(LoadShedder)
starlette.add_middleware(CORSMiddleware)
around = LoadShedder(Starlette())

def bare(environ, start_response):
    return []

wrapped = WSGILoadShedder(bare)
behind = ProxyFix(wrapped)
flask = Flask("doctor")
FlaskShedder(flask)

def make():
    return flask
"""


@pytest.fixture
def facts(tmp_path, monkeypatch):
    name = f"doctors_shop_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SHOP)
    monkeypatch.syspath_prepend(str(tmp_path))
    apps = ("starlette", "around", "wrapped", "behind", "flask", "make()", "absent")
    found = _imported.main([f"{name}:{app}" for app in apps] + ["doctors_no_such_module"])
    yield found, name
    sys.modules[name].client.close()
    del sys.modules[name]


def test_clients_and_applications_are_found_by_the_names_that_lead_to_them(facts):
    found, name = facts
    said = {}
    for kind in ("sessions", "managers", "transports"):
        mine = [each for each in found[kind] if each["name"].startswith(name)]
        only = {"failures": [], "sessions": [], "managers": [], "transports": [], kind: mine}
        said |= {finding.where.removeprefix(f"{name}:"): finding for finding in judge_clients(only) if mine}
    verdicts = {where: finding.verdict for where, finding in said.items()}
    assert verdicts == {
        "plain": "ok",
        "guarded": "ok",
        "retrying": "warning",
        "held.session": "ok",
        "pool": "warning",
        "saber": "ok",
        "client._transport": "warning",
    }
    assert "no GroundFaultAdapter is mounted" in said["plain"].seen
    assert "http://saber/" in said["guarded"].seen
    assert "up to 4 requests" in said["retrying"].seen
    assert "only it knows" in said["held.session"].seen
    assert "up to 3 connects" in said["client._transport"].seen

    chains = {app["target"].removeprefix(f"{name}:"): (app["chain"], app["middleware"]) for app in found["apps"]}
    assert chains == {
        "starlette": (["Starlette"], ["CORSMiddleware", "shedder"]),
        "around": (["shedder", "Starlette"], []),
        "wrapped": (["shedder", "bare"], None),
        "behind": (["ProxyFix", "shedder", "bare"], None),
        "flask": (["shedder", "Flask"], None),
        "make()": (["shedder", "Flask"], None),
    }
    assert {each["target"].rpartition(":")[2]: each["error"].split(":")[0] for each in found["failures"]} == {
        "absent": "AttributeError",
        "doctors_no_such_module": "ModuleNotFoundError",
    }


# --- the process that imports -----------------------------------------------------------------------------------------


@pytest.mark.e2e
def test_imports_happen_in_a_process_of_their_own_which_is_bounded_and_whose_words_are_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dying.py").write_text("import os\nprint('last words')\nos._exit(3)\n")
    (tmp_path / "hanging.py").write_text("import time\nprint('so far', flush=True)\ntime.sleep(60)\n")
    (tmp_path / "fine.py").write_text("import sys\nprint('noise')\nraise SystemExit('no settings')\n")
    (finding,) = look_at_modules(["dying"])
    assert finding.verdict == "problem"
    assert finding.seen == "the import was ended with code 3\n| last words"
    (finding,) = look_at_modules(["hanging"], limit_s=4.0)
    assert finding.seen == "the import was not done within 4 s\n| so far"
    (finding,) = look_at_modules(["fine"])
    assert finding.seen.startswith("SystemExit: no settings\n| Traceback")
    assert "fine" not in sys.modules
    with pytest.raises(ChildError, match="ended with code 1"):
        ask("groundfault.doctor.no_such_module", [], limit_s=clients.LIMIT_S)
