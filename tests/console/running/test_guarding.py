"""Who is let in, and who may write."""

import base64
import logging

import pytest

from groundfault import SettingsError, wire
from groundfault.console import basic_auth
from groundfault.console.answering import Console
from groundfault.console.asking import Asked
from groundfault.console.guarding import Guard, checked_token

TOKEN = "sixteen-or-more-characters"  # noqa: S105  of these tests alone
JSON = {"content-type": "application/json"}


def asked(method="GET", path="/snapshot.json", *, unix=False, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(method, path, {"host": "localhost", **named}, unix=unix)


def status(guard, request):
    refusal = guard.refusal(request)
    return None if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("LOCALHOST:9731", True),
        ("localhost.", True),
        ("localhost.:80", True),
        ("localhost:", True),
        ("127.0.0.1", True),
        ("127.1.2.3:1", True),
        ("[::1]", True),
        ("[::1]:9731", True),
        ("console.example.com", True),
        ("Console.Example.Com.:8443", True),
        ("[fd00::7]:80", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example:localhost", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("x@localhost", False),
        ("localhost@evil.example", False),
        ("localhost, evil.example", False),
        ("localhost,localhost", False),
        ("localhost/x", False),
        ("localhost:99999999", False),
        ("localhost:-1", False),
        ("localhost:\uff18\uff10", False),
        ("localhost\x00", False),
        ("0.0.0.0", False),  # noqa: S104  it is refused
        ("[::]", False),
        ("::1", False),
        ("[::1]evil.example", False),
        ("..", False),
        ("*", False),
        ("", False),
    ],
)
def test_only_known_names_are_answered_to_whatever_a_name_was_made_to_point_to(host, known):
    guard = Guard(hosts=["console.example.com", "fd00::7"])
    assert status(guard, asked(host=host)) == (None if known else 403)


def test_a_star_lets_in_any_one_name_but_no_nonsense():
    guard = Guard(hosts=["*"])
    assert status(guard, asked(host="anything.example:81")) is None
    for host in ("", "a, b", "a b", "user@a"):
        assert status(guard, asked(host=host)) == 403


def test_without_a_host_only_a_unix_socket_is_answered():
    for method in ("GET", "POST"):
        request = Asked(method, "/", {**JSON, wire.TOKEN.lower(): TOKEN})
        assert status(Guard(token=TOKEN), request) == 403
        assert status(Guard(token=TOKEN), request._replace(unix=True)) is None
    assert status(Guard(), asked(host="evil.example", unix=True)) == 403  # a browser behind a proxy


@pytest.mark.parametrize("hosts", [["a b"], [""], ["https://a"], ["a,b"]])
def test_a_name_that_is_none_is_refused_at_once(hosts):
    with pytest.raises(SettingsError, match="hosts must hold names"):
        Guard(hosts=hosts)


@pytest.mark.parametrize(
    ("host", "origin", "same"),
    [
        ("localhost:9731", "http://localhost:9731", True),
        ("localhost:9731", "http://LOCALHOST:9731", True),
        ("localhost", "http://localhost", True),
        ("localhost:80", "http://localhost", True),
        ("localhost", "https://localhost:443", True),
        ("[::1]:9731", "http://[::1]:9731", True),
        ("localhost:9731", "http://localhost:9732", False),
        ("localhost:9731", "http://127.0.0.1:9731", False),
        ("localhost", "http://localhost:443", False),
        ("localhost", "null", False),
        ("localhost", "", False),
        ("localhost", "http://evil.example", False),
        ("localhost", "http://localhost.evil.example", False),
        ("localhost", "http://localhost@evil.example", False),
        ("localhost", "http://evil.example@localhost", False),
        ("localhost", "file://localhost", False),
        ("localhost", "http://localhost/path", False),
        ("localhost", "http://localhost, http://evil.example", False),
        ("localhost", "http://[", False),
    ],
)
def test_a_change_is_made_from_the_consoles_own_page_only(host, origin, same):
    request = asked("POST", host=host, origin=origin, **{**JSON, wire.TOKEN.lower(): TOKEN})
    assert status(Guard(token=TOKEN), request) == (None if same else 403)


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({}, None),
        ({"content-type": "Application/JSON; charset=utf-8"}, None),
        ({"sec-fetch-site": "same-origin"}, None),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({wire.TOKEN.lower(): ""}, 403),
        ({wire.TOKEN.lower(): TOKEN[:-1]}, 403),
        ({wire.TOKEN.lower(): TOKEN.upper()}, 403),
        ({wire.TOKEN.lower(): f"{TOKEN}, {TOKEN}"}, 403),
        ({wire.TOKEN.lower(): "tökén-that-is-not-ascii"}, 403),
        ({wire.TOKEN.lower(): "\udcff" * 20}, 403),
    ],
)
def test_a_change_needs_the_token_in_a_header_and_json(changed, refused):
    assert status(Guard(token=TOKEN), asked("POST", **{**JSON, wire.TOKEN.lower(): TOKEN, **changed})) == refused


def test_without_a_token_nobody_writes_not_even_with_an_empty_one():
    for given in ("", TOKEN):
        assert status(Guard(), asked("POST", **JSON, **{wire.TOKEN.lower(): given})) == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "BREW", ""])
def test_other_methods_are_refused(method):
    assert status(Guard(token=TOKEN), asked(method, **JSON, **{wire.TOKEN.lower(): TOKEN})) == 405


@pytest.mark.parametrize("token", ["", "short", "a" * 15, "ä" * 20, "with a space in it", "with\nline\nbreaks\nin"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused_at_once(token):
    with pytest.raises(SettingsError, match="must be at least 16 ASCII characters"):
        checked_token(token)
    assert checked_token(None) is None


def basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (basic("ada:pass:wörd"), True),
        (basic("ada:pass:wörd").replace("Basic", "BASIC"), True),
        (basic("ada:other"), False),
        (basic("ada:"), False),
        (basic(""), False),
        ("Basic", False),
        ("Basic ====", False),
        ("Basic \xff\xfe", False),
        (basic("ada:pass:wörd").replace("Basic", "Bearer"), False),
        (None, False),
    ],
)
def test_basic_auth_lets_in_one_user(given, known):
    guard = Guard(auth=basic_auth("ada", "pass:wörd"))
    headers = {} if given is None else {"authorization": given}
    assert status(guard, asked(**headers)) == (None if known else 401)


@pytest.mark.parametrize(("user", "password"), [("", "x"), ("a:b", "x"), ("a", "")])
def test_basic_auth_refuses_what_lets_everybody_in(user, password):
    with pytest.raises(SettingsError, match="basic_auth needs a user"):
        basic_auth(user, password)


def test_neither_shows_in_what_is_printed():
    assert "secret" not in repr(basic_auth("ada", "secret"))
    assert TOKEN not in repr(vars(Guard(token=TOKEN)))


def test_who_is_let_in_by_what_fails_is_nobody():
    def broken(request):
        raise KeyError("user")

    console = Console(lambda: b"", guard=Guard(auth=broken))
    assert console.answer(asked()).status == 500


def test_refused_writes_are_logged_once_in_a_while_briefly_and_without_the_token(clock, caplog):
    guard = Guard(token=TOKEN, clock=clock)
    guessed = "guessed-token-0123456789"
    request = asked("POST", origin="http://evil.example/\n" + "x" * 500, **JSON, **{wire.TOKEN.lower(): guessed})
    with caplog.at_level(logging.WARNING, "groundfault"):
        for _ in range(5):
            guard.refusal(request)
        assert len(caplog.records) == 1
        clock.advance(11.0)
        guard.refusal(request)
    first, second = (record.getMessage() for record in caplog.records)
    assert "the Origin must be this console's own" in first
    assert "http://evil.example/\\n" in first
    assert len(first) < 300
    assert "4 more before" in second
    assert guessed not in caplog.text
    assert "\n" not in first


def test_reading_is_not_logged(caplog):
    Guard().refusal(asked(host="evil.example"))
    assert not caplog.records
