"""The tree of errors: what they say, what they are, and that they survive a trip to another process."""

import copy
import inspect
import pickle
import sys

import pytest

from groundfault import errors
from groundfault.vocabulary import Reason

EVERY_ERROR = [
    (errors.GroundFaultError("boom"), "boom"),
    (errors.SettingsError("timeout_s must be above 0, not -1"), "timeout_s must be above 0, not -1"),
    (errors.RejectedError("saber", "get"), "saber/get was rejected"),
    (errors.CircuitOpenError("saber", "get", 2.34), "circuit saber/get is open; next probe in 2.3 s"),
    (errors.BulkheadFullError("saber", "get", 5), "saber/get already has 5 calls in flight, its limit"),
    (
        errors.ThrottledError("saber", "get", 0.25),
        "saber/get is throttled: its callee is shedding, 25% of the calls are sent",
    ),
    (errors.UnhealthyError("saber", "get"), "saber/get was not called: its health check fails"),
    (errors.ShedError("saber", "get"), "saber/get was shed by its callee (no reason given)"),
    (
        errors.ShedError("saber", "get", Reason.QUEUE_WAIT, "contest-db"),
        "saber/get was shed by contest-db (queue-wait)",
    ),
    (errors.CommandTimeoutError("saber", "get", 0.5), "saber/get took longer than its timeout of 0.5 s"),
]
WITH_IDS = pytest.mark.parametrize(("error", "message"), EVERY_ERROR, ids=lambda value: type(value).__name__)


def test_no_error_is_left_out_here():
    public = {error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, BaseException)}
    assert {type(error) for error, _ in EVERY_ERROR} == public
    assert {error.__name__ for error in public} == set(errors.__all__)


@WITH_IDS
def test_messages_name_the_thing_and_the_limit(error, message):
    assert str(error) == message


@WITH_IDS
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_pickle(error, message, protocol):
    twin = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  our own bytes
    assert type(twin) is type(error)
    assert str(twin) == message
    assert twin.args == error.args
    assert vars(twin) == vars(error)


@WITH_IDS
def test_errors_copy(error, message):
    assert str(copy.deepcopy(copy.copy(error))) == message


@WITH_IDS
def test_one_base_catches_all(error, message):
    assert isinstance(error, errors.GroundFaultError)


@pytest.mark.parametrize(
    ("error", "attribute", "value"),
    [
        (errors.CircuitOpenError("saber", "get", 2.5), "retry_after_s", 2.5),
        (errors.BulkheadFullError("saber", "get", 5), "max_concurrent", 5),
        (errors.ThrottledError("saber", "get", 0.25), "admitted_share", 0.25),
        (errors.RejectedError("saber", "get"), "resource", "saber"),
        (errors.RejectedError("saber", "get"), "command", "get"),
        (errors.ShedError("saber", "get", Reason.DEADLINE, "db", "response"), "reason", Reason.DEADLINE),
        (errors.ShedError("saber", "get", Reason.DEADLINE, "db", "response"), "origin", "db"),
        (errors.ShedError("saber", "get", Reason.DEADLINE, "db", "response"), "response", "response"),
        (errors.CommandTimeoutError("saber", "get", 0.5), "timeout_s", 0.5),
    ],
)
def test_facts_are_attributes(error, attribute, value):
    assert getattr(error, attribute) == value


def test_rejections_are_told_from_calls_that_were_made():
    for kind in (
        errors.CircuitOpenError,
        errors.BulkheadFullError,
        errors.ThrottledError,
        errors.UnhealthyError,
    ):
        assert issubclass(kind, errors.RejectedError)
    assert not issubclass(errors.ShedError, errors.RejectedError)
    assert not issubclass(errors.CommandTimeoutError, errors.RejectedError)


def test_code_that_knows_only_the_standard_library_catches_the_obvious_ones():
    assert issubclass(errors.CommandTimeoutError, TimeoutError)
    assert issubclass(errors.SettingsError, ValueError)


def test_a_response_does_not_travel_between_processes():
    """It holds a socket."""
    error = errors.ShedError("saber", "get", response=sys.stdout)
    assert pickle.loads(pickle.dumps(error)).response is None  # noqa: S301  our own bytes


def test_a_refusal_runs_no_constructor_of_ours():
    """It must stay cheaper than the call it refuses."""
    for kind in (errors.RejectedError, errors.CircuitOpenError, errors.BulkheadFullError, errors.ThrottledError):
        assert not inspect.isfunction(kind.__init__)
        assert not inspect.isfunction(kind.__new__)


class HostError(Exception):
    """The shape of a client library's own error: it keeps a response, None unless told."""

    def __init__(self, *args, response=None):
        self.response = response
        super().__init__(*args)


class HostShedError(errors.ShedError, HostError):
    """What an adapter makes of the two."""


def test_a_host_librarys_base_class_does_not_lose_the_response():
    error = HostShedError("saber", "get", Reason.QUEUE_WAIT, "db", "response")
    assert (error.response, error.origin) == ("response", "db")
    assert pickle.loads(pickle.dumps(error)).origin == "db"  # noqa: S301  our own bytes


def test_a_call_that_was_not_made_for_want_of_time_blames_nobody():
    assert str(errors.CommandTimeoutError("saber", "get", 0.5)) == "saber/get took longer than its timeout of 0.5 s"
    assert str(errors.CommandTimeoutError("saber", "get", 0.0)) == (
        "saber/get was not called: the request being served has no time left"
    )
