"""What is known about the request being served, and which error is put down to which fault."""

import asyncio
import contextvars
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault._context import LEDGER_LIMIT, Fault, RequestContext, current, serving
from groundfault.vocabulary import Outcome, Reason


class Response:
    status_code = 503


class CarryingError(Exception):
    """A client library's error with the response it is about."""

    def __init__(self, response):
        super().__init__("503")
        self.response = response


class HostileError(Exception):
    """A client library's error that has no response yet and says so by raising."""

    @property
    def response(self):
        raise RuntimeError("not sent")


def fault(carrier, command="get"):
    return Fault("saber", command, Outcome.FAILURE, Reason.DEPENDENCY, None, carrier)


def context(*faults):
    made = RequestContext("grouper")
    for each in faults:
        made.note(each)
    return made


def caused(error, cause):
    error.__cause__ = cause
    return error


def test_the_ledger_is_bounded_and_keeps_the_newest():
    made = context(*(fault(None, f"c{number}") for number in range(3 * LEDGER_LIMIT)))
    assert [each.command for each in made.faults] == [f"c{n}" for n in range(2 * LEDGER_LIMIT, 3 * LEDGER_LIMIT)]


def test_the_ledger_is_bounded_when_threads_write_at_once():
    made = RequestContext("grouper")
    start = threading.Barrier(8)

    def write():
        start.wait()
        for _ in range(500):
            made.note(fault(None))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made.faults) == LEDGER_LIMIT


def test_clearing_a_ledger_while_it_is_written_raises_nothing():
    """A request may end while a thread it left behind still calls."""

    class Cleared(list):
        def append(self, item):
            super().append(item)
            self.clear()

    made = RequestContext("grouper", faults=Cleared())
    made.note(fault(None))
    assert made.faults == []


def test_an_error_is_put_down_to_the_fault_it_is():
    error, other = ValueError("boom"), ValueError("boom")
    made = context(fault(other, "other"), fault(error, "get"))
    assert made.fault_behind(error).command == "get"


def test_an_equal_error_is_not_the_same_error():
    assert context(fault(KeyError("a"))).fault_behind(KeyError("a")) is None


def test_identity_holds_against_objects_that_claim_to_equal_everything():
    class EqualToAll(Exception):  # noqa: N818  what matters is __eq__
        def __eq__(self, other):
            return True

        __hash__ = None

    assert context(fault(EqualToAll())).fault_behind(ValueError()) is None


def test_an_error_raised_from_a_fault_comes_from_it():
    root = ConnectionError("refused")
    wrapped = caused(RuntimeError("no entrants"), caused(LookupError("db"), root))
    assert context(fault(root)).fault_behind(wrapped).carrier is root


def test_an_error_raised_while_handling_a_fault_does_not_come_from_it():
    """A bug in an error handler is a bug, and answers 500."""
    root = ConnectionError("refused")
    bug = TypeError("bug")
    bug.__context__ = root
    assert context(fault(root)).fault_behind(bug) is None


def test_an_error_that_carries_the_response_of_a_fault_comes_from_it():
    response = Response()
    made = context(fault(response))
    assert made.fault_behind(CarryingError(response)).carrier is response
    assert made.fault_behind(caused(RuntimeError(), CarryingError(response))).carrier is response
    assert made.fault_behind(CarryingError(Response())) is None
    assert made.fault_behind(CarryingError(None)) is None


def test_no_response_is_not_a_carrier():
    assert context(fault(None)).fault_behind(CarryingError(None)) is None


def test_a_response_that_raises_is_none():
    root = HostileError()
    made = context(fault(root))
    assert made.fault_behind(root).carrier is root
    assert made.fault_behind(caused(HostileError(), root)).carrier is root
    assert made.fault_behind(HostileError()) is None


def test_an_error_that_wraps_a_fault_in_its_arguments_comes_from_it():
    """As ``requests.ConnectionError`` does with urllib3's error, without a cause."""
    root = OSError("refused")
    made = context(fault(root))
    assert made.fault_behind(ConnectionError(root)).carrier is root
    assert made.fault_behind(ConnectionError("refused")) is None


def test_strange_arguments_are_none():
    class StrangeError(Exception):
        @property
        def args(self):
            raise RuntimeError("none of your business")

    root = StrangeError()
    assert context(fault(root)).fault_behind(root).carrier is root
    assert context(fault(KeyError())).fault_behind(root) is None


def test_what_a_fallback_made_good_is_struck_out():
    one, two = ConnectionError(), ConnectionError()
    made = context(fault(one, "a"), fault(two, "b"), fault(one, "c"))
    made.recover(one)
    assert [each.command for each in made.faults] == ["b"]
    made.recover(one)
    made.recover(None)
    assert [each.command for each in made.faults] == ["b"]


def test_the_faults_behind_an_error_are_struck_out_with_it():
    response, rejection = object(), ConnectionError()
    wrapper = CarryingError(response)
    made = context(fault(response, "a"), fault(None, "b"), fault(rejection, "c"))
    made.recover(wrapper)
    assert [each.command for each in made.faults] == ["b", "c"]
    made.recover(caused(ValueError(), rejection))
    assert [each.command for each in made.faults] == ["b"]


def test_the_newest_fault_of_one_carrier_is_named():
    error = ConnectionError()
    assert context(fault(error, "inner"), fault(error, "outer")).fault_behind(error).command == "outer"


def test_an_empty_ledger_explains_nothing():
    assert RequestContext("grouper").fault_behind(ValueError()) is None


def test_a_ring_of_causes_ends():
    one, two = ValueError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert context(fault(KeyError())).fault_behind(one) is None


def test_a_long_chain_is_followed_so_far_and_no_further():
    root = KeyError()
    made = context(fault(root))
    near, far = root, root
    for _ in range(LEDGER_LIMIT - 1):
        near = caused(ValueError(), near)
    for _ in range(LEDGER_LIMIT):
        far = caused(ValueError(), far)
    assert made.fault_behind(near).carrier is root
    assert made.fault_behind(far) is None


def test_a_group_of_errors_comes_from_faults_if_each_member_does():
    one, two, bug = ConnectionError(), CarryingError(Response()), TypeError("bug")
    made = context(fault(one, "one"), fault(two.response, "two"))
    assert made.fault_behind(ExceptionGroup("g", [one, two])).command == "two"
    assert made.fault_behind(ExceptionGroup("g", [ExceptionGroup("h", [one]), two])).command == "two"
    assert made.fault_behind(caused(RuntimeError(), ExceptionGroup("g", [one]))).command == "one"
    assert made.fault_behind(ExceptionGroup("g", [one, bug])) is None
    assert made.fault_behind(ExceptionGroup("g", [bug, one])) is None


def test_a_ring_through_groups_ends():
    one, two, known = ValueError(), ValueError(), KeyError()
    group = ExceptionGroup("g", [known, one, two])
    one.__cause__ = two.__cause__ = group
    assert context(fault(known)).fault_behind(group) is None


def test_a_task_group_is_explained():
    boom = ConnectionError()

    async def call():
        raise boom

    async def endpoint():
        async with asyncio.TaskGroup() as group:
            group.create_task(call())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(endpoint())
    assert context(fault(boom)).fault_behind(caught.value).carrier is boom


def test_nothing_is_kept_where_no_request_is_served():
    assert current() is None


def test_a_worker_thread_with_a_copied_context_writes_into_the_same_ledger():
    made = RequestContext("grouper")

    def serve():
        serving.set(made)
        copied = contextvars.copy_context()
        thread = threading.Thread(target=copied.run, args=(lambda: current().note(fault("thread")),))
        thread.start()
        thread.join()

    contextvars.copy_context().run(serve)
    assert [each.carrier for each in made.faults] == ["thread"]
    assert current() is None


def test_tasks_write_into_the_same_ledger_and_requests_do_not_mix():
    async def child():
        current().note(fault(current().service))

    async def request(name):
        made = RequestContext(name)
        serving.set(made)
        await asyncio.gather(child(), child())
        return made

    async def main():
        return await asyncio.gather(*(asyncio.create_task(request(name)) for name in ("a", "b")))

    for made in asyncio.run(main()):
        assert [each.carrier for each in made.faults] == [made.service] * 2


@given(st.lists(st.sampled_from(["note", "note", "ask", "clear"]), max_size=80))
def test_the_ledger_stays_within_its_bound(steps):
    made, error = RequestContext("grouper"), ValueError()
    for step in steps:
        if step == "note":
            made.note(fault(error))
        elif step == "clear":
            made.faults.clear()
        found = made.fault_behind(error)
        assert (found is None) == (not made.faults)
        assert len(made.faults) <= LEDGER_LIMIT
