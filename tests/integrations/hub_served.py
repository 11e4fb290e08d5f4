"""A hub that keeps settings and nothing else: in a thread of the tests, or as a process: ``hub_served.py URL PORT``."""

import contextlib
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from groundfault import wire
from groundfault.console.asking import Asked
from groundfault.console.hub.storing import Storing
from groundfault.settings.opening import open_store


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        served = self.server.served
        served.asked.append(f"{self.command} {self.path}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        served.headers.append(headers)
        body = self.rfile.read(int(headers.get("content-length", 0)))
        if served.token is not None and headers.get(wire.TOKEN.lower()) != served.token:
            self.send_response(403)
            self.send_header("Content-Length", "13")
            self.end_headers()
            self.wfile.write(b"wrong token\r\n")
            return
        path = self.path.removeprefix(served.prefix)
        status, answered, content = served.storing.answer(Asked(self.command, path, headers, body))
        self.send_response(status)
        for name, value in answered:
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815  as http.server calls it

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, *_):
        """Say nothing: clients come and go."""

    def shutdown_request(self, request):
        self.served.open.discard(request)
        super().shutdown_request(request)


class HubServed:
    """Serves a store. ``asked``: the requests so far; ``headers``: theirs."""

    def __init__(self, store, *, port=0, token=None, prefix="", tls=None, **options):
        self.storing = Storing(store, **{"look_s": 0.05, **options})
        self.token = token
        self.prefix = prefix
        self.asked, self.headers, self.open = [], [], set()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.served = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}{prefix}"
        self._accept = self._server.get_request
        self._server.get_request = self._noted
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _noted(self):
        request, address = self._accept()
        self.open.add(request)
        return request, address

    def close(self):
        """Stop listening, and cut every connection."""
        self._server.shutdown()
        self._server.server_close()
        for request in list(self.open):
            with contextlib.suppress(OSError):
                request.shutdown(2)
        self._thread.join()
        self.storing.close()


def tls_of(place):
    """Return how a server speaks TLS with the certificate in a directory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    return context


if __name__ == "__main__":
    HubServed(open_store(sys.argv[1]), port=int(sys.argv[2]))
    threading.Event().wait()
