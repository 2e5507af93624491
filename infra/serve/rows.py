"""a body → the events in it, and never more of them than one request may bring."""

import msgspec

from headrace.infra.serve.refusals import RequestRefused, TooLarge


class Events:
    """For one thread.

    8 MB of `[1,1,1,…` are four million values, which would take half a gigabyte and half a second to be refused. Where
    there are enough commas for too many events, they are counted first, without making anything of them; in so long a
    list a value that is no object refuses all of it.
    """

    def __init__(self, most: int) -> None:
        self._most, self._left = most, 0
        one_more = self._one_more

        class Counted(msgspec.Struct):
            def __post_init__(self) -> None:
                one_more()

        self._count = msgspec.json.Decoder(list[Counted]).decode
        self._split = msgspec.json.Decoder(list[msgspec.Raw]).decode

    def __call__(self, body: bytes) -> list[bytes]:
        """Each still undecoded. Raises RequestRefused, TooLarge."""
        try:
            if body.count(b",") >= self._most:
                self._left = self._most
                self._count(body)
            return [bytes(event) for event in self._split(body)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestRefused(f"body: expected an event as a JSON object, or a list of them; {error}") from error

    def _one_more(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooLarge(f"expected up to {self._most:,} events in one request, got more")
