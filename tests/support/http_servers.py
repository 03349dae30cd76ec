"""A small HTTP server for tests that answers as it is told."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator

Respond = Callable[[str, str], tuple[int, str]]
"""Method and path -> status and body."""


@contextlib.contextmanager
def http_server(respond: Respond) -> Iterator[str]:
    """Start it on loopback; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, body = respond(self.command, self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = _answer

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def mlflow_api(method: str, path: str) -> tuple[int, str]:
    """What an MLflow server without experiments answers."""
    if method == "GET":
        return (200, '{"experiments": []}') if "experiments/search" in path else (404, "{}")
    return 400, '{"error_code": "INVALID_PARAMETER_VALUE"}'
