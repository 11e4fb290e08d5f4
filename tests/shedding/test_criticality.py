"""What a request is worth: rules of the operator, and what a header may say about itself."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault import CriticalityRule, Shedder
from groundfault.errors import SettingsError
from groundfault.events import RequestSeen, internal_errors
from groundfault.shedding._rules import Rules
from groundfault.shedding.criticality import RequestInfo
from groundfault.shedding.settings import ShedderSettings
from groundfault.sinks import Sinks
from groundfault.vocabulary import Criticality

_PLUS, _CRITICAL, _SHEDDABLE_PLUS, _SHEDDABLE = Criticality
_STRANGER = "203.0.113.9"


class _Headers(dict):
    def get(self, name, default=None):
        return super().get(name.lower(), default)


def _worth(rules, *, said=None, trusted=False, method="GET", path="/", **headers):
    given = Rules(ShedderSettings(criticality=rules), killed=False)
    carried = _Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return given.criticality_of(RequestInfo(method, path, carried, None), said, trusted=trusted)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/", "/", True),
        ("/", "/a", False),
        ("/suggest", "/suggest", True),
        ("/suggest", "/suggest/", False),
        ("/suggest*", "/suggest", True),
        ("/suggest*", "/suggestions", True),
        ("/suggest*", "/suggest/more", False),
        ("/checkout/**", "/checkout", True),
        ("/checkout/**", "/checkout/", True),
        ("/checkout/**", "/checkout/a/b\nc", True),
        ("/checkout/**", "/checkouts", False),
        ("/checkout/**", "/a/checkout/b", False),
        ("/**", "/", True),
        ("/**", "/anything/at/all", True),
        ("/users/*/orders", "/users/7/orders", True),
        ("/users/*/orders", "/users/7/8/orders", False),
        ("/users/*/orders", "/users//orders", True),
        ("/users/*/orders", "/users/7/orders/9", False),
        ("/a*a", "/a", False),
        ("/a*a", "/aa", True),
        ("/a*b*c", "/a-b-b-c", True),
        ("/a*b*c", "/a-c-b", False),
        ("/*.css", "/site.min.css", True),
        ("/v1.0/x", "/v1x0/x", False),
        ("/caf\u00e9", "/caf\u00e9", True),
        ("/a***b", "/a-b", False),
    ],
)
def test_patterns_of_paths(pattern, path, matches):
    if "**" in pattern.removesuffix("/**"):
        with pytest.raises(SettingsError, match=r"\*\* as its last segment"):
            CriticalityRule("sheddable", path=pattern)
        return
    assert CriticalityRule("sheddable", path=pattern).matches("GET", path, _Headers()) is matches


def _naive(glob, text):
    """Match by trying everything; small inputs only."""
    if not glob:
        return not text
    if glob[0] == "*":
        return _naive(glob[1:], text) or (bool(text) and text[0] != "/" and _naive(glob, text[1:]))
    return bool(text) and text[0] == glob[0] and _naive(glob[1:], text[1:])


_shorts = st.text(alphabet="ab/", max_size=8)


@given(st.text(alphabet="ab/*", max_size=7).filter(lambda glob: "**" not in glob), _shorts)
def test_a_pattern_matches_what_trying_everything_matches(glob, text):
    assert CriticalityRule("sheddable", path="/" + glob).matches("GET", "/" + text, _Headers()) is _naive(glob, text)


def test_no_path_takes_longer_than_its_length_warrants():
    """Engines that go back take 2^n or n^k steps here; a tenth of a second is 300 times what is needed."""
    rule = CriticalityRule("sheddable", path="/" + "*a" * 40 + "*b")
    path = "/" + "a" * 50_000
    spent = []
    for _ in range(3):
        begun = time.thread_time()
        assert not rule.matches("GET", path, _Headers())
        spent.append(time.thread_time() - begun)
    assert min(spent) < 0.1


@pytest.mark.parametrize(
    ("rule", "method", "path", "headers", "matches"),
    [
        ({"method": "POST"}, "POST", "/", {}, True),
        ({"method": "post"}, "POST", "/", {}, True),
        ({"method": ["PUT", "PATCH"]}, "PATCH", "/", {}, True),
        ({"method": ["PUT", "PATCH"]}, "POST", "/", {}, False),
        ({"path": "/a", "method": "POST"}, "GET", "/a", {}, False),
        ({"header": "X-Plan"}, "GET", "/", {"x-plan": ""}, True),
        ({"header": "X-Plan"}, "GET", "/", {}, False),
        ({"header": "x-plan", "value": "free"}, "GET", "/", {"x-plan": " free\t"}, True),
        ({"header": "X-Plan", "value": "free"}, "GET", "/", {"x-plan": "freedom"}, False),
        ({"header": "User-Agent", "value": "*bot/*"}, "GET", "/", {"user-agent": "Some bot/1.0"}, True),
        ({"header": "User-Agent", "value": "*bot/*"}, "GET", "/", {"user-agent": "Mozilla"}, False),
    ],
)
def test_every_condition_given_must_hold(rule, method, path, headers, matches):
    assert CriticalityRule("sheddable", **rule).matches(method, path, _Headers(headers)) is matches


def test_the_first_rule_that_matches_decides():
    rules = [
        CriticalityRule("critical-plus", path="/checkout/**", method="POST"),
        {"criticality": "sheddable", "path": "/suggest*"},
        lambda info: _SHEDDABLE_PLUS if info.path.endswith(".png") else None,
        CriticalityRule("critical", path="/checkout/**"),
    ]
    assert _worth(rules, path="/checkout/pay", method="POST") is _PLUS
    assert _worth(rules, path="/checkout/pay", said=_SHEDDABLE) is _CRITICAL
    assert _worth(rules, path="/suggest", said=_PLUS) is _SHEDDABLE
    assert _worth(rules, path="/logo.png") is _SHEDDABLE_PLUS
    assert _worth(rules, path="/", said=_SHEDDABLE) is _SHEDDABLE
    assert _worth(rules, path="/") is None


def test_a_rule_on_a_header_raises_for_trusted_peers_only():
    rules = [
        CriticalityRule("critical-plus", header="X-Vip"),
        CriticalityRule("critical", header="X-Plan", value="paid"),
        CriticalityRule("sheddable-plus", header="X-Plan", value="free"),
        CriticalityRule("sheddable", path="/suggest*"),
    ]
    assert _worth(rules, trusted=True, x_vip="1") is _PLUS
    assert _worth(rules, x_vip="1") is _CRITICAL
    assert _worth(rules, x_vip="1", path="/suggest") is _SHEDDABLE
    assert _worth(rules, x_plan="paid", path="/suggest") is _SHEDDABLE
    assert _worth(rules, x_plan="paid", path="/suggest", trusted=True) is _CRITICAL
    assert _worth(rules, x_plan="free") is _SHEDDABLE_PLUS
    assert _worth(rules, x_plan="free", x_vip="1") is _SHEDDABLE_PLUS
    assert _worth(rules, x_plan="free", said=_SHEDDABLE) is _SHEDDABLE


_names = st.sampled_from(["x-a", "x-b", "x-c"])
_values = st.sampled_from(["1", "2", "3"])
_rules = st.lists(
    st.builds(
        CriticalityRule,
        st.sampled_from(list(Criticality)),
        path=st.sampled_from([None, "/a", "/a/**", "/**"]),
        method=st.sampled_from([None, "GET", ("POST", "PUT")]),
        header=_names,
        value=st.none() | _values,
    )
    | st.builds(CriticalityRule, st.sampled_from(list(Criticality)), path=st.sampled_from(["/a", "/a/**", "/b"])),
    max_size=6,
)


@given(
    _rules, st.dictionaries(_names, _values), st.dictionaries(_names, _values), st.sampled_from(["/a", "/b", "/a/c"])
)
def test_a_stranger_gains_by_no_header(rules, headers, more, path):
    """Whatever it adds, and whatever it claims: never is it worth more than before."""
    given = Rules(ShedderSettings(criticality=rules), killed=False)

    def rank(carried, said=None):
        found = given.criticality_of(RequestInfo("GET", path, _Headers(carried), _STRANGER), said, trusted=False)
        return (found or _CRITICAL).rank

    added = {**more, **headers}
    assert rank(added) >= rank(headers) >= rank({})
    for said in (_SHEDDABLE_PLUS, _SHEDDABLE):  # all that is believed of a stranger's own header
        assert rank(headers, said) >= rank({})


def test_a_callable_that_raises_has_no_opinion():
    assert _worth([lambda _: 1 / 0, {"criticality": "sheddable", "path": "/"}]) is _SHEDDABLE
    assert _worth([lambda _: "vital"]) is None
    assert internal_errors() == {"criticality": 2}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("sheddable", "must be None, a callable, or a sequence"),
        ({"criticality": "sheddable", "path": "/"}, "must be None, a callable, or a sequence"),
        (7, "must be None, a callable, or a sequence"),
        (["sheddable"], "must be a CriticalityRule, a mapping of its fields, or a callable"),
        ([{"path": "/"}], "must be one that names a criticality"),
        ([{"criticality": "sheddable", "paths": "/"}], "rule must be made of criticality, path, method, header, value"),
        ([{"criticality": "vital", "path": "/"}], "criticality must be one of critical-plus"),
        ([{"criticality": None, "path": "/"}], "criticality must be one of"),
        ([{"criticality": "sheddable"}], "needs a path, a method or a header"),
        ([{"criticality": "sheddable", "path": "suggest"}], "path must be a pattern that begins with /"),
        ([{"criticality": "sheddable", "path": 7}], "path must be"),
        ([{"criticality": "sheddable", "path": "/" * 513}], "at most 512"),
        ([{"criticality": "sheddable", "path": "/a/**/b"}], r"\*\* as its last segment only"),
        ([{"criticality": "sheddable", "method": ""}], "method must be"),
        ([{"criticality": "sheddable", "method": []}], "method must be"),
        ([{"criticality": "sheddable", "method": 7}], "method must be"),
        ([{"criticality": "sheddable", "method": b"GET"}], "method must be"),
        ([{"criticality": "sheddable", "header": "X Plan"}], "header must be the name of a header, not 'X Plan'"),
        ([{"criticality": "sheddable", "path": "/", "value": "x"}], "value 'x' needs a header"),
        ([{"criticality": "sheddable", "header": "X", "value": 7}], "value must be"),
        ([{"criticality": "sheddable", "path": "/"}] * 201, "at most 200 rules"),
    ],
)
def test_nonsense_is_refused_by_name(rules, said):
    with pytest.raises(SettingsError, match=f"criticality.*{said}"):
        ShedderSettings(criticality=rules)


def test_what_a_file_can_hold_is_a_rule():
    plain = [{"criticality": "sheddable", "path": "/suggest*", "method": ["GET"]}]
    settings = ShedderSettings(criticality=plain)
    assert settings.criticality == (CriticalityRule(Criticality.SHEDDABLE, path="/suggest*", method="get"),)
    assert settings == ShedderSettings(criticality=plain)
    assert ShedderSettings(criticality=[]).criticality is None


@pytest.mark.parametrize("peer", ["127.0.0.1", _STRANGER])
def test_rules_are_live_and_trust_is_the_peer_s(make_driver, sink, peer):
    driver = make_driver()
    driver.shedder.tune(
        criticality=[
            {"criticality": "critical-plus", "header": "x-vip"},
            {"criticality": "sheddable", "path": "/suggest"},
        ]
    )
    driver.send(path="/suggest", headers=[("X-Vip", "1")], peer=peer)
    driver.send(path="/suggest", peer=peer)
    believed = _PLUS if peer == "127.0.0.1" else _SHEDDABLE
    assert [event.criticality for event in sink.of(RequestSeen)] == [believed, _SHEDDABLE]


def test_rules_decide_who_is_refused(make_driver, clock):
    driver = make_driver(criticality=[CriticalityRule("critical-plus", path="/checkout/**")])
    driver.send(wait_s=0.5)
    clock.advance(1.5)
    assert driver.send(wait_s=0.06, path="/checkout/pay").status == 200  # four times the target is admitted
    assert driver.send(wait_s=0.06, path="/").status == 503


def test_a_path_beyond_ascii_is_the_same_on_both_protocols(make_driver, sink):
    """PEP 3333 hands bytes over as latin-1."""
    driver = make_driver(criticality=[CriticalityRule("sheddable", path="/caf\u00e9")])
    path = "/caf\u00e9" if driver.on_loop else "/caf\u00e9".encode().decode("latin-1")
    driver.send(path=path)
    assert sink.of(RequestSeen)[0].criticality is _SHEDDABLE


def test_a_shedder_says_what_its_rules_are():
    shedder = Shedder(sinks=Sinks(), criticality=[{"criticality": "sheddable", "path": "/suggest*"}])
    assert "path='/suggest*'" in repr(shedder.snapshot().settings.criticality)


def test_nobody_known_is_trusted_by_no_callable():
    """The address of a connection that has been reset is not there to be judged."""
    asked = []
    trust = Rules(ShedderSettings(trusted_callers=lambda peer: asked.append(peer) is None), killed=False).trust
    assert [trust.believes(peer) for peer in (None, "", "10.0.0.1")] == [True, False, True]
    assert asked == ["10.0.0.1"]
