"""The trace of the request being served goes on to the callee, through every client."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import httpx
import httpx2
import pytest
import requests

from groundfault._context import RequestContext, serving
from groundfault.breaker import Registry, Resource
from groundfault.integrations._grpc_wire import without
from groundfault.integrations._http import hop_headers
from groundfault.integrations.aiohttp import GroundFaultMiddleware
from groundfault.integrations.httpx import GroundFaultTransport
from groundfault.integrations.httpx2 import GroundFaultTransport as GroundFaultTransport2
from groundfault.integrations.requests import GroundFaultAdapter
from groundfault.integrations.urllib3 import GroundFaultPoolManager

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OWN = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01"


class Echo(BaseHTTPRequestHandler):
    """Answers with the values of traceparent that came."""

    def do_GET(self):
        body = json.dumps(self.headers.get_all("traceparent", [])).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def served():
    """Serve a request that belongs to a trace."""
    token = serving.set(RequestContext("topps", traceparent=TRACE))
    yield
    serving.reset(token)


def by_requests(resource, url, headers):
    with requests.Session() as session:
        session.mount(url, GroundFaultAdapter(resource))
        return session.get(url, headers=headers).json()


def by_urllib3(resource, url, headers):
    with GroundFaultPoolManager(resource) as manager:
        return manager.request("GET", url, headers=headers).json()


def by_httpx(resource, url, headers):
    with httpx.Client(transport=GroundFaultTransport(resource)) as client:
        return client.get(url, headers=headers).json()


def by_httpx2(resource, url, headers):
    with httpx2.Client(transport=GroundFaultTransport2(resource)) as client:
        return client.get(url, headers=headers).json()


def by_aiohttp(resource, url, headers):
    async def get():
        async with (
            aiohttp.ClientSession(middlewares=[GroundFaultMiddleware(resource)]) as session,
            session.get(url, headers=headers) as response,
        ):
            return await response.json(content_type=None)

    return asyncio.run(get())


WAYS = [by_requests, by_urllib3, by_httpx, by_httpx2, by_aiohttp]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def ask(request, url):
    resource = Resource("saber", registry=Registry(), sinks=())
    return lambda headers=None: request.param(resource, url, headers or {})


@pytest.mark.usefixtures("served")
def test_it_goes_on_as_it_came(ask):
    assert ask() == [TRACE]


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("name", ["traceparent", "Traceparent", "TRACEPARENT"])
def test_whoever_starts_spans_writes_its_own(ask, name):
    assert ask({name: OWN}) == [OWN]


def test_without_a_request_being_served_there_is_none(ask):
    assert ask() == []


@pytest.mark.usefixtures("served")
def test_metadata_of_grpc_is_given_it_by_the_same_rule():
    command = Resource("saber", registry=Registry(), sinks=()).command("get")
    assert dict(hop_headers(command, None, ()))["traceparent"] == TRACE
    kept = without([("traceparent", OWN), ("x-groundfault-key", "ff")])
    assert "traceparent" not in dict(hop_headers(command, None, [name for name, _ in kept]))
