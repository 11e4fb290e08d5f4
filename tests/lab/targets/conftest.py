"""Parts of a target, without the processes."""

import json

import pytest

from groundfault.lab.parts import Phase
from groundfault.lab.targets.part import Part


@pytest.fixture
def part(tmp_path):
    """Return a maker of parts that write below the test's directory."""

    def make(variant=Phase.GROUNDFAULT, *, service="saber", callees=None, instance=0, **options):
        return Part(
            service=service,
            instance=instance,
            variant=variant,
            directory=str(tmp_path),
            token="t",  # noqa: S106  the token of a test
            callees=callees or {},
            options=options,
        )

    return make


@pytest.fixture
def ask():
    """Return what sends one GET to a WSGI application: status, headers and the JSON or text of the answer."""

    def get(app, path):
        answers = []
        environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET", "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1"}
        chunks = app(environ, lambda *answer: answers.append(answer))
        body = b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        status, headers = answers[-1][:2]
        text = body.decode()
        return int(status[:3]), dict(headers), json.loads(text) if text.startswith("{") else text

    return get
