"""an API key, typed once → a cookie that stands for it: for browsers, which send no Authorization by themselves."""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

COOKIE = "headrace-session"  # and the port: a browser sends a host's cookies to all of its ports
_SECONDS = 12 * 3600.0  # a working day: then the key is asked for again
_MOST = 1_000  # the oldest goes for a new one


class Sessions:
    """In memory: a restart signs everybody out. What a cookie may do is what its key may do at each request."""

    def __init__(self, port: int, clock: Callable[[], float] = monotonic) -> None:
        self._name, self._clock = f"{COOKIE}-{port}", clock
        self._held: OrderedDict[str, tuple[str, float]] = OrderedDict()  # token and end, by session

    def begin(self, token: str, *, secure: bool = False) -> str:
        """The value of Set-Cookie. No page reads it, and no other site's request carries it; nor one without TLS, where
        it is to be `secure`."""
        session = secrets.token_urlsafe(32)
        self._held[session] = (token, self._clock() + _SECONDS)
        while len(self._held) > _MOST:
            self._held.popitem(last=False)
        return f"{self._name}={session}; Path=/; HttpOnly; SameSite=Strict; Max-Age={_SECONDS:.0f}{'; Secure' * secure}"

    def end(self, cookies: bytes) -> str:
        """The value of Set-Cookie."""
        self._held.pop(self._session(cookies), None)
        return f"{self._name}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"

    def authorization(self, cookies: bytes) -> str | None:
        """As the header that a program would send."""
        session = self._session(cookies)
        token, end = self._held.get(session, ("", 0.0))
        if not token:
            return None
        if self._clock() > end:
            del self._held[session]
            return None
        return f"Bearer {token}"

    def _session(self, cookies: bytes) -> str:
        """What others on this host set may be no cookie by any rule."""
        for one in cookies.decode("latin-1").split(";"):
            name, _, value = one.strip().partition("=")
            if name == self._name:
                return value
        return ""
