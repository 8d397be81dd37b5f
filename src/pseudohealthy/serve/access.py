"""Who is answered: this machine's names, holders of the token, our own pages; and what every answer
forbids.

A page elsewhere on the web can make a browser ask 127.0.0.1. It cannot read the token, which is in
an HttpOnly cookie that other sites' requests do not carry; it cannot name another host (DNS
rebinding), nor post without showing its origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
ALWAYS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
LOCAL = ("127.0.0.1", "localhost", "::1")
SAFE = ("GET", "HEAD")


class Guard:
    """ASGI application around `app`. listen: the address it is bound to; most: bytes of a body."""

    def __init__(self, app: ASGIApp, *, token: str, cookie: str, listen: str, most: int):
        self.app, self.token, self.cookie, self.most = app, token, cookie, most
        self.names = {*LOCAL, listen.lower()}
        self.everywhere = listen in ("0.0.0.0", "::")
        if self.everywhere:
            self.names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # no web sockets here
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.setdefault("Content-Security-Policy", NOTHING)
                for name, value in ALWAYS.items():
                    answer[name] = value
                if self.knows(given):
                    value = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                    answer.append("Set-Cookie", value)
            await send(message)

        refusal = self.refusal(scope["method"], headers, given)
        await (refusal or self.app)(scope, receive, sent)

    def refusal(self, method: str, headers: Headers, given: str) -> Response | None:
        """Why this request gets no answer; None where it does."""
        if not self.here(headers):
            return said(421, "this address is not served here")
        if method not in (*SAFE, "POST"):
            return said(405, "only GET and POST are answered")
        if method == "POST" and not self.ours(headers):
            return said(403, "the request comes from another page")
        if not (self.knows(given) or self.knows(self.carried(headers))):
            return said(
                403, "open the address that `pseudohealthy serve` printed: it holds the token"
            )
        if headers.get("content-encoding", "identity") != "identity":
            return said(415, "compressed requests are not taken")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > self.most:
            return said(413, f"at most {self.most / 2**30:.3g} GiB at once; see --most-gb")
        return None

    def here(self, headers: Headers) -> bool:
        """Whether there is one Host, and it is this machine; any port, because tunnels change
        it."""
        hosts = headers.getlist("host")
        name = _name(hosts[0]) if len(hosts) == 1 else None
        return name is not None and (name in self.names or (self.everywhere and _is_address(name)))

    def ours(self, headers: Headers) -> bool:
        """Whether a page of this app asks, by Origin or by what browsers say of the site; one of
        them must be there."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            return False
        # no-referrer makes a form's origin null.
        if origin is None or (origin == "null" and site == "same-origin"):
            return site is not None
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc.lower() == headers["host"].lower()

    def carried(self, headers: Headers) -> str:
        """The token of the cookie or of Authorization: Bearer."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return bearer
        try:
            morsel = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return morsel.value if morsel else ""

    def knows(self, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self.token.encode())


def said(status: int, text: str) -> Response:
    """A refusal in one line."""
    return PlainTextResponse(text + "\n", status)


def _name(host: str) -> str | None:
    """The name of "name:port", in lower case, without the brackets of IPv6; None for nonsense."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    plain = not (parts.username or parts.password or parts.path or parts.query or parts.fragment)
    return parts.hostname if plain else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
