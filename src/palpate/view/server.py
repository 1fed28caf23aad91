"""The page over HTTP: loopback only, read-only, one secret path, nothing of another origin.

Whoever may open a port on this machine could ask it for patients' images, so every address starts
with a secret of this start. Names that a browser was tricked into resolving to this machine are
refused by the Host header (DNS rebinding).
"""

import hmac
import re
import secrets
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson
from typing_extensions import override

from palpate.errors import StoreError, UsageError
from palpate.view.files import Unknown
from palpate.view.sheet import LONGEST, Query, QueryError
from palpate.view.shelf import Shelf

ADDRESS: Final = "127.0.0.1"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_REPORT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; sandbox"
)
_KINDS: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
PARTS: Final = {
    "": ("palpate.view", "page.html"),
    "style.css": ("palpate.report", "style.css"),
    "view.css": ("palpate.view", "view.css"),
    "view.js": ("palpate.view", "view.js"),
}
"""Files of the page by address."""
_SOURCE: Final = {"source.js": ("palpate.view", "from_server.js")}
_KEY: Final = re.compile(r"(cell|samples|case)/([0-9a-f]{64})")


@dataclass(frozen=True)
class Answer:
    """What one address holds.

    Attributes:
        body: content.
        kind: media type.
        policy: what the browser may load and run.
        status: of HTTP.
    """

    body: bytes
    kind: str = "application/json"
    policy: str = POLICY
    status: HTTPStatus = HTTPStatus.OK


@dataclass
class Site:
    """Every address that the page may ask for.

    Attributes:
        folder: the run directory.
        secret: first part of every address.
    """

    folder: Path
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stamp: int = -1

    def __post_init__(self) -> None:
        self._shelf = Shelf.open(self.folder)
        self._stamp = self._written()

    def answer(self, address: str) -> Answer:
        """What the address of a request holds; errors are answers too."""
        parts = urlsplit(address)
        first, _, rest = parts.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(first.encode(), self.secret.encode()):
            return _refused(HTTPStatus.NOT_FOUND, "no such page")
        if first == parts.path.removeprefix("/"):
            return _refused(HTTPStatus.NOT_FOUND, "no such page; the address ends with a slash")
        try:
            with self._lock:  # one reader; the page asks for little at a time
                return self._page(rest, parts.query)
        except Unknown as error:
            return _refused(HTTPStatus.NOT_FOUND, str(error))
        except (QueryError, UnicodeDecodeError) as error:
            return _refused(HTTPStatus.BAD_REQUEST, str(error))
        except StoreError as error:
            return _refused(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))

    def _page(self, path: str, query: str) -> Answer:
        if part := (PARTS | _SOURCE).get(path):
            return Answer((files(part[0]) / part[1]).read_bytes(), _KINDS[Path(part[1]).suffix])
        if path == "report.html" and (report := self._shelf.files.report) is not None:
            return Answer(report.read_bytes(), _KINDS[".html"], _REPORT_POLICY)
        asked = dict(parse_qsl(query, keep_blank_values=True, errors="strict"))
        if path == "data/run":
            return _json(self._fresh().about())
        if path == "data/cells":
            return _json(self._fresh().cells(asked_query(asked)))
        if found := _KEY.fullmatch(path.removeprefix("data/")):
            return _json(self._of_cell(found[1], found[2], asked))
        return _refused(HTTPStatus.NOT_FOUND, f"no such page: {unquote(path)[:80]}")

    def _of_cell(self, what: str, key: str, asked: dict[str, str]) -> Any:
        shelf = self._shelf
        if what == "cell":
            return shelf.head(key)
        if what == "samples":
            return shelf.samples(key).page(asked_query(asked))
        trial = _whole("trial", asked.get("trial", "0"))
        return shelf.case(key, asked.get("sample", ""), trial=trial)

    def _fresh(self) -> Shelf:
        """The run as it is now: it may go on, or start again, while it is looked at."""
        if (stamp := self._written()) != self._stamp:
            self._shelf, self._stamp = Shelf.open(self.folder), stamp
        return self._shelf

    def _written(self) -> int:
        path = self.folder / "run.json"
        return path.stat().st_mtime_ns if path.exists() else 0


def asked_query(asked: dict[str, str]) -> Query:
    """The query that an address states.

    Raises:
        QueryError: a number that is none.
    """
    return Query(
        text=asked.get("text", "")[:200],
        chosen={k.removeprefix("is."): v for k, v in asked.items() if k.startswith("is.")},
        sort=asked.get("sort", ""),
        down=asked.get("down") == "1",
        start=_whole("start", asked.get("start", "0")),
        count=min(_whole("count", asked.get("count", "50")), LONGEST),
    )


def _whole(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise QueryError(f"{name}: expected a whole number, got {text[:40]!r}")
    return int(text)


def _json(data: Any) -> Answer:
    return Answer(orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY))


def _refused(status: HTTPStatus, why: str) -> Answer:
    return Answer(orjson.dumps({"error": why}), status=status)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD for one host name; everything else is refused."""

    protocol_version = "HTTP/1.1"
    server_version = "Palpate"
    sys_version = ""
    timeout = 30  # seconds that an idle connection may hold a thread
    site: Site
    hosts: frozenset[str]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            why = f"expected the host {min(self.hosts)}, got {', '.join(hosts)[:80] or 'none'}"
            self._send(_refused(HTTPStatus.MISDIRECTED_REQUEST, why))
            return
        self._send(self.site.answer(self.path))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Content-Security-Policy", answer.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        # the base class looks for do_<METHOD> and would answer 501 to all others
        if name.startswith("do_"):
            return self._not_allowed
        raise AttributeError(name)

    def _not_allowed(self) -> None:
        self.close_connection = True  # a body that nobody reads would be taken for a request
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold the secret and patients' ids."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, unless the browser only went away in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def make_server(folder: Path, *, port: int = 0) -> tuple[ThreadingHTTPServer, str]:
    """A server over one run, bound but not yet serving, and the address of its page.

    Args:
        folder: the run directory.
        port: 0 for any that is free.

    Raises:
        StoreError: no run there, or a damaged one.
        UsageError: the port cannot be had.
    """
    site = Site(folder)
    handler = type("Handler", (_Handler,), {"site": site})
    try:
        server = _Server((ADDRESS, port), handler)
    except (OSError, OverflowError) as error:
        raise UsageError(f"port {port}: cannot be had on {ADDRESS}: {error}") from None
    number = server.server_address[1]
    handler.hosts = frozenset({f"{ADDRESS}:{number}", f"localhost:{number}"})
    return server, f"http://{ADDRESS}:{number}/{site.secret}/"
