"""an operator's wishes by HTTP: a training on demand, and what became of it. Each is a question to the broker."""

import msgspec

from headrace.infra.names import Names
from headrace.infra.serve.in_threads import InThreads
from headrace.infra.serve.refusals import NotFound, RequestRefused
from headrace.infra.services.changes import ask
from headrace.infra.services.versions import catalog
from headrace.infra.services.versions.book import RunFacts
from headrace.infra.settings import Settings
from headrace.models.errors import BadInput
from headrace.streams.codec import clock_ms

_AT_ONCE = 4  # questions to the broker, each of which reads a topic
_NEWEST = 100  # runs in a list


class RetrainRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    why: str = ""


class RetrainAccepted(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    pipeline: str
    state: str


_retrain = msgspec.json.Decoder(RetrainRequest).decode


class Operations:
    def __init__(self, settings: Settings, pipelines: dict[str, Names]) -> None:
        self._settings, self._pipelines = settings, pipelines
        self._in_thread = InThreads(_AT_ONCE)

    async def retrain(self, pipeline: str, body: bytes, who: str) -> RetrainAccepted:
        """Acknowledged by the broker: whoever leads runs it, now or when there is one."""
        try:
            why = _retrain(body).why if body else ""
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestRefused(f'body: expected nothing, or {{"why": "a text"}}; {error}') from error
        if len(why) > 1_000:
            raise RequestRefused(f"why: expected up to 1,000 characters, got {len(why):,}")
        names = self._names(pipeline)
        asked = await self._in_thread(
            lambda: ask.requested(self._settings, names, at=clock_ms(), by=f"serve: {who}", why=why)
        )
        return RetrainAccepted(run=asked.run, pipeline=pipeline, state="requested")

    async def run(self, pipeline: str, run: str) -> RunFacts:
        names = self._names(pipeline)
        try:
            return await self._in_thread(lambda: catalog.run(self._settings, names, run))
        except BadInput as error:
            raise NotFound(str(error)) from error

    async def runs(self, pipeline: str) -> list[RunFacts]:
        """The newest last."""
        names = self._names(pipeline)
        return (await self._in_thread(lambda: catalog.runs(self._settings, names)))[-_NEWEST:]

    def _names(self, pipeline: str) -> Names:
        if pipeline not in self._pipelines:
            raise NotFound(f"pipeline: expected one of {', '.join(self._pipelines)}; got {pipeline[:100]!r}")
        return self._pipelines[pipeline]
