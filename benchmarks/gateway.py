"""A web server before a tracking server, as nginx stands there, which can answer by itself with a page in HTML."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ARTIFACTS = "/api/2.0/mlflow-artifacts/"
_ALONE = {"transfer-encoding", "content-length", "connection", "host", "date", "server"}
"""Headers of one connection, which are not passed on."""


class Gateway:
    """Passes requests on to a tracking server, unless it is told to answer them itself."""

    def __init__(self, upstream: str) -> None:
        """`upstream`: address of the tracking server."""
        self.answers: int | None = None
        """HTTP status of each answer while it is set, such as 502."""
        self.refuses_uploads: int | None = None
        """HTTP status of each answer to an upload while it is set, such as 413."""
        gateway, address = self, urlsplit(upstream).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except ConnectionError:  # the client is dead
                    self.close_connection = True

            def answer(self) -> None:
                body = self._body()
                upload = self.command == "PUT" and self.path.startswith(ARTIFACTS)
                if code := gateway.answers or (gateway.refuses_uploads if upload else None):
                    self._page(code)
                    return
                try:
                    upstream = http.client.HTTPConnection(address, timeout=60)
                    upstream.request(self.command, self.path, body or None, _passed(self.headers.items()))
                    answer = upstream.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException):
                    self._page(502)
                    return
                self._send(answer.status, content, _passed(answer.getheaders()))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def _page(self, code: int) -> None:
                page = f"<html><head><title>{code}</title></head><body><h1>{code}</h1></body></html>".encode()
                self._send(code, page, {"Content-Type": "text/html"})

            def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _passed(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers that are passed on."""
    return {name: value for name, value in headers if name.lower() not in _ALONE}
