"""How much is taken on: per request, and for all that wait."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Beyond them a request is refused at once, with what is allowed. Nothing here grows without a bound."""

    request_bytes: int = 8 << 20  # of one body, and of what it unpacks to
    request_rows: int = 10_000
    waiting_bytes: int = 256 << 20  # of all bodies that are not answered yet; half of it of those that gRPC receives
    waiting_requests: int = 2_048  # per lane
    waiting_rows: int = 65_536  # per lane
    batch_rows: int = 1_024  # the most that run together; a larger request runs alone
    batch_seconds: float = 0.02  # a batch that takes longer makes the next ones smaller
    deadline_seconds: float = 10.0  # for requests that say none, and the longest that one may say
    logged_bytes: int = 64 << 20  # of served rows that the broker has not acknowledged, per pipeline
    connections: int = 4_096  # of each of REST and gRPC
    head_seconds: float = 10.0  # for a request's line and headers to come, and for gRPC's handshake
    versions: int = 4  # loaded on demand, beside the champions
    loading: int = 8  # versions that may be waited for at the same time
