"""What pages of other websites send to this server is refused: a browser says where a request comes from."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

_READING = ("GET", "HEAD", "OPTIONS")
_LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
_REFUSED = b"Requests from other websites are refused."


class OwnOriginOnly:
    """Middleware that refuses all but reading to pages that came from elsewhere.

    A form needs no leave of the server to send to it, files among them. Programs name no origin and are let through.

    Parameters
    ----------
    app : callable
        What follows; speaks ASGI.
    port : int
        That the page is served at.
    """

    def __init__(self, app: Callable, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http" or scope["method"] in _READING or self._is_own(scope["headers"]):
            await self._app(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(_REFUSED)).encode())]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": _REFUSED})

    def _is_own(self, headers: list[tuple[bytes, bytes]]) -> bool:
        given = dict(headers)
        if b"origin" not in given:
            return True
        try:
            origin = urlsplit(given[b"origin"].decode("latin-1"))
            is_local = origin.hostname in _LOCAL_NAMES and (origin.port or 80) == self._port
        except ValueError:  # no address at all
            return False
        # Through a tunnel the browser knows the page at another port; the name it asks for was looked at before.
        as_asked = origin.netloc == given.get(b"host", b"").decode("latin-1")
        return origin.scheme == "http" and (is_local or as_asked)
