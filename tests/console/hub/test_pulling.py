"""Asking consoles: whatever answers, or does not, it ends in time with a report or with a reason."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from hub_reports import pushed

from groundfault.console.hub import pulling
from groundfault.console.hub.pulling import NoAnswerError, Puller, address_of, fetch
from groundfault.errors import SettingsError

REPORT = pushed({"get": 1})


@asynccontextmanager
async def console(answer, *, asked=None, hold=False):
    """Serve those bytes to whoever connects; ``hold``: and leave the connection open."""
    ended = asyncio.Event()

    async def serve(reader, writer):
        with suppress(TimeoutError):  # whoever begins with TLS sends something else first
            async with asyncio.timeout(0.5):
                head = await reader.readuntil(b"\r\n\r\n")
            if asked is not None:
                asked.append(head.decode())
        writer.write(answer)
        if hold:
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()
        await server.wait_closed()


def answer(body=REPORT, *lines, status="200 OK", length=True):
    head = [f"HTTP/1.1 {status}", *lines, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join((*head, "", "")).encode() + body


def chunked(*parts):
    text = b"".join(b"%x;note\r\n%s\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + text + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "said",
    [answer(), answer(length=False), chunked(REPORT[:100], REPORT[100:])],
    ids=["length", "until-closed", "chunks"],
)
def test_a_report_comes_as_it_was_sent_and_the_question_says_who_asks(said):
    async def main():
        asked = []
        async with console(said, asked=asked) as netloc:
            found = await fetch(address_of(f"http://ops:s%20cret@{netloc}/groundfault/"))
        return found, netloc, asked[0].split("\r\n")

    found, netloc, lines = asyncio.run(main())
    assert found == REPORT
    assert lines[0] == "GET /groundfault/report HTTP/1.1"
    assert f"Host: {netloc}" in lines
    assert "Authorization: Basic b3BzOnMgY3JldA==" in lines


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "ended before it was whole"),
        (answer()[:-4], "ended before it was whole"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 20_000, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500, "no HTTP"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", "more than 1000 bytes"),
        (answer(bytes(1001)), "more than 1000 bytes"),
        (answer(bytes(50_000), length=False), "more than 1000 bytes"),
        (answer(b"", "Location: http://169.254.169.254/", status="302 Found"), "it answers 302"),
        (answer(b"not\x1b[31m here\n", status="403 Forbidden"), r"it answers 403: not\[31m here"),
    ],
)
def test_what_is_no_report_is_no_answer_with_a_reason(said, why):
    async def main():
        async with console(said) as netloc:
            await fetch(address_of(f"http://{netloc}"), largest=1000)

    with pytest.raises(NoAnswerError, match=why):
        asyncio.run(main())


def test_a_console_that_drips_is_given_up_in_time():
    async def main():
        async with console(answer()[:-9], hold=True) as netloc:
            await fetch(address_of(f"http://{netloc}"), longest_s=0.2)

    with pytest.raises(NoAnswerError, match=r"no answer within 0.2 s"):
        asyncio.run(main())


def test_nobody_there_and_no_such_name_and_no_tls_are_reasons_too():
    async def why(address):
        with pytest.raises(NoAnswerError) as caught:
            await fetch(address)
        return str(caught.value)

    async def main():
        async with console(answer()) as netloc:
            pass
        async with console(b"plain text") as other:
            return await why(address_of(f"http://{netloc}")), await why(address_of(f"https://{other}"))

    nobody, plain = asyncio.run(main())
    assert nobody == "Connection refused"
    assert plain.startswith("TLS: ")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("web-1:9731", "must be as http://web-1:9731/"),
        ("ftp://web-1/", "must be as"),
        ("file:///etc/passwd", "must be as"),
        ("http:///x", "must be as"),
        ("http://web-1/?url=x", "must be as"),
        ("http://web-1:99999/", "must be a URL"),
        ("http://web-1/\r\nX: y", "without spaces"),
        ("http://w\xfcb/", "ASCII"),
        ("gopher://ops:hunter2@web-1/", r"not '\.\.\.@web-1/'"),
    ],
)
def test_an_address_that_makes_no_sense_is_refused_without_its_secrets(url, said):
    with pytest.raises(SettingsError, match=said) as caught:
        address_of(url)
    assert "hunter2" not in str(caught.value)


def test_too_many_consoles_are_refused():
    addresses = [address_of(f"http://web-{number}/") for number in range(501)]
    with pytest.raises(SettingsError, match="at most 500 consoles, not 501"):
        Puller(addresses, arrived=None, missed=None)


def test_one_console_that_is_gone_does_not_hold_up_the_others():
    async def main():
        arrived, missed = asyncio.Queue(), asyncio.Queue()

        async def came(address, body):
            arrived.put_nowait((address.name, body))

        async def failed(address, why):
            missed.put_nowait((address.name, why))

        async with console(answer()) as gone:
            pass
        async with console(answer()) as here:
            puller = Puller([address_of(f"http://{gone}"), address_of(f"http://{here}")], arrived=came, missed=failed)
            task = asyncio.create_task(puller.run())
            async with asyncio.timeout(20.0):
                found = [await arrived.get(), await missed.get()]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return found, here, gone

    (came, failed), here, gone = asyncio.run(main())
    assert came == (here, REPORT)
    assert failed[0] == gone


def test_consoles_behind_tls_share_what_they_are_trusted_by(monkeypatch):
    made, given = [], []
    monkeypatch.setattr(pulling.ssl, "create_default_context", lambda: made.append(object()) or made[-1])

    async def main():
        async def asked(_, *, context):
            given.append(context)
            raise NoAnswerError("no")

        async def missed(_, why):
            pass

        monkeypatch.setattr(pulling, "fetch", asked)
        monkeypatch.setattr(pulling, "_INTERVAL_S", 0.01)
        addresses = [address_of(f"https://web-{number}/") for number in range(3)]
        puller = Puller(addresses, arrived=missed, missed=missed)
        async with asyncio.timeout(20):
            task = asyncio.create_task(puller.run())
            while len(given) < 6:  # noqa: ASYNC110  nothing says that it was asked
                await asyncio.sleep(0.01)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert len(made) == 1
    assert set(map(id, given)) == {id(made[0])}
    Puller([address_of("http://web-1/")], arrived=None, missed=None)
    assert len(made) == 1


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "web..example"])
def test_a_name_that_no_host_can_have_is_said_to_be_none(host):
    with pytest.raises(NoAnswerError, match="there can be no host of that name"):
        asyncio.run(fetch(address_of(f"http://{host}/")))
