"""who asks, and from where → whether they may.

Without keys everybody on this machine may do everything; a web page that a user of this machine visits may not: it
would come with an Origin, or under a host name that is none of ours (DNS rebinding). CORS is never granted.
"""

from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address

from headrace.infra.api_keys import ApiKey, ApiKeys, Role
from headrace.infra.serve.refusals import Forbidden, Unauthenticated

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
_ANYBODY = "anybody on this machine"


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    def __init__(self, keys: ApiKeys, *, required: bool, hosts: Collection[str], origins: Collection[str]) -> None:
        """`required`: a key, even where there is none. `hosts` without ports, `origins` as browsers send them."""
        self._keys, self._required = keys, required
        self._hosts = {host.lower() for host in (*hosts, *LOCAL_HOSTS)}
        self._origins = {origin.lower().rstrip("/") for origin in origins}
        self._known: dict[bytes, bool] = {}  # Host headers of this process's clients, as they are written

    def check_place(self, headers: Mapping[bytes, bytes], *, changes: bool) -> None:
        """The Host of any request, and the Origin of one that changes something. Raises Forbidden."""
        host = headers.get(b"host", b"")
        known = self._known.get(host)
        if known is None:
            known = _name_of(host.decode("latin-1")) in self._hosts
            if len(self._known) < 1_000:
                self._known[host] = known
        if not known:
            raise Forbidden(
                f"Host: expected one of {', '.join(sorted(self._hosts))} (--allow-host); got {_shown(host)}"
            )
        if not changes:
            return
        origin = headers.get(b"origin")
        if origin is not None and not self._is_ours(origin.decode("latin-1").lower(), host.decode("latin-1").lower()):
            raise Forbidden(f"Origin: expected none, this server's own, or one of --allow-origin; got {_shown(origin)}")
        site = headers.get(b"sec-fetch-site")
        if origin is None and site not in (None, b"none", b"same-origin"):
            raise Forbidden(f"Sec-Fetch-Site: expected no other site's page to ask; got {_shown(site or b'')}")

    def _is_ours(self, origin: str, host: str) -> bool:
        """A page of this server's, whose Host is one that it answers to; or of a name that a proxy gives it."""
        return origin in self._origins or origin in (f"http://{host}", f"https://{host}")

    def is_by_https(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a form came from a page under one of the given origins that is https: what else a proxy says of its
        clients, anybody could say."""
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        return origin.startswith("https://") and origin in self._origins

    def who(self, role: Role, authorization: Callable[[], str | None]) -> str:
        """The name of who asks. Raises Unauthenticated, Forbidden."""
        key = self.key(role, authorization)
        return _ANYBODY if key is None else key.name

    def key(self, role: Role, authorization: Callable[[], str | None]) -> ApiKey | None:
        """Of who asks; None where nobody needs one. Raises Unauthenticated, Forbidden."""
        if not self._required and not self._keys:
            return None
        given = authorization()
        if not given:
            raise Unauthenticated("Authorization: expected `Bearer` and an API key (`headrace key add`); got none")
        scheme, _, token = given.partition(" ")
        key = self._keys.holder(token.strip()) if scheme.lower() == "bearer" else None
        if key is None:
            raise Unauthenticated("Authorization: expected `Bearer` and an API key that is not revoked; got another")
        if not key.may(role):
            raise Forbidden(f"API key {key.id}: expected the role {role}; it has {key.role}")
        return key


def _name_of(host: str) -> str:
    """Without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _shown(value: bytes) -> str:
    return repr(value[:80].decode("latin-1"))
