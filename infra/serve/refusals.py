"""what a request is answered with instead of a prediction: as an HTTP status and as a gRPC code."""

from typing import ClassVar

import grpc

from headrace.models.errors import HeadraceError


class RequestRefused(HeadraceError):
    """The request is wrong as it is: what was expected, what came."""

    status: ClassVar[int] = 400
    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INVALID_ARGUMENT
    retry_after: int | None = None  # seconds, where the same request may be answered later


class Unauthenticated(RequestRefused):
    status = 401
    code = grpc.StatusCode.UNAUTHENTICATED


class Forbidden(RequestRefused):
    status = 403
    code = grpc.StatusCode.PERMISSION_DENIED


class NotFound(RequestRefused):
    status = 404
    code = grpc.StatusCode.NOT_FOUND


class NotAllowed(RequestRefused):
    """`allowed` are the methods that the path has."""

    status = 405
    code = grpc.StatusCode.UNIMPLEMENTED

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"method: expected {allowed}, got {method}")
        self.allowed = allowed


class TooLarge(RequestRefused):
    status = 413


class UnknownEncoding(RequestRefused):
    status = 415


class Unprocessable(RequestRefused):
    """Well-formed, and yet there is no prediction: on the stream it would be a dead letter with this reason."""

    status = 422
    code = grpc.StatusCode.FAILED_PRECONDITION

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class Overloaded(RequestRefused):
    status = 429
    code = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, text: str, retry_after: int = 1) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Unavailable(RequestRefused):
    status = 503
    code = grpc.StatusCode.UNAVAILABLE

    def __init__(self, text: str, retry_after: int = 1) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class Late(RequestRefused):
    status = 504
    code = grpc.StatusCode.DEADLINE_EXCEEDED
