"""Who may push, who may read settings, who may change them."""

import pytest

from groundfault import wire
from groundfault.console.asking import Asked
from groundfault.console.hub.gate import Gate, basic, is_loopback
from groundfault.errors import SettingsError

HOSTS = "of-the-hosts-0123456789"
PEOPLE = "of-the-people-0123456789"


def asked(token=None, method="POST", **headers):
    given = {"host": "127.0.0.1:9733", "content-type": "application/json"}
    if token is not None:
        given[wire.TOKEN.lower()] = token
    return Asked(method, "/push", given | {name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("token", "peer", "request_", "status"),
    [
        (HOSTS, "10.0.0.1", asked(HOSTS), None),
        (HOSTS, "10.0.0.1", asked(HOSTS, host="hub.internal"), None),
        (HOSTS, "10.0.0.1", asked(PEOPLE), None),
        (HOSTS, "10.0.0.1", asked(HOSTS + "x"), 403),
        (HOSTS, "127.0.0.1", asked(), 403),
        (HOSTS, "127.0.0.1", asked("\xfc"), 403),
        (None, "10.0.0.1", asked(), 403),
        (None, "", asked(), 403),
        (None, "127.0.0.1", asked(), None),
        (None, "::1", asked(host="[::1]:9733"), None),
        (None, "127.0.0.1", asked(host="evil.example"), 403),
        (None, "127.0.0.1", asked(host="hub.internal"), None),
        (None, "127.0.0.1", asked(origin="http://127.0.0.1:9733"), 403),
        (None, "127.0.0.1", asked(origin="null"), 403),
    ],
)
def test_hosts_show_the_hubs_token_or_are_this_machine_and_no_page(token, peer, request_, status):
    refused = Gate(token=token, steering=PEOPLE, hosts=["hub.internal"]).refusal(request_, peer)
    assert (refused and refused.status) == status


@pytest.mark.parametrize(
    ("steering", "request_", "status"),
    [
        (PEOPLE, asked(PEOPLE), None),
        (PEOPLE, asked(HOSTS), 403),
        (PEOPLE, asked(PEOPLE, content_type="text/plain"), 415),
        (PEOPLE, asked(PEOPLE, origin="http://evil.example"), 403),
        (None, asked(HOSTS), 403),
    ],
)
def test_a_change_takes_the_token_of_people(steering, request_, status):
    refused = Gate(token=HOSTS, steering=steering).refusal_of_change(request_)
    assert (refused and refused.status) == status


def test_a_token_that_can_be_guessed_is_refused():
    with pytest.raises(SettingsError, match="GROUNDFAULT_HUB_TOKEN must be at least 16"):
        Gate(token="short", steering=None)  # noqa: S106  so that it is refused


@pytest.mark.parametrize(
    ("given", "enters"),
    [
        ("Basic YW55Om9wZW4=", True),
        ("basic YW55Om9wZW4=", True),
        ("Basic YW55OnNodXQ=", False),
        ("Basic %", False),
        ("", False),
    ],
)
def test_people_show_the_password_under_any_name(given, enters):
    assert basic("open")(Asked("GET", "/", {"authorization": given})) is enters


@pytest.mark.parametrize(
    ("address", "own"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True),
     ("10.0.0.1", False), ("::ffff:10.0.0.1", False), ("", False), ("127.0.0.1.evil.example", False)],
)  # fmt: skip
def test_which_addresses_are_this_machines_own(address, own):
    assert is_loopback(address) is own
