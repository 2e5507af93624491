"""candidate → a version in the registry, with the run's outcome, in one transaction."""

from msgspec.structs import replace

from headrace.models.aliases import CHALLENGER, CHAMPION
from headrace.models.protocols import Shadows
from headrace.models.records import Finished
from headrace.scheduler.attempts import Candidate
from headrace.scheduler.decide import Run
from headrace.scheduler.ledger import Ledger
from headrace.scheduler.outcomes import now, publication
from headrace.scheduler.writer import Writer

_INITIAL = Run(run="initial", tick=None, trigger="initial")


class Publisher:
    """Writes as of the ledger's last `follow`."""

    def __init__(self, pipeline: str, name: str, ledger: Ledger, writer: Writer, shadow: Shadows | None) -> None:
        self._pipeline, self._name, self._ledger, self._writer = pipeline, name, ledger, writer
        self._shadow = shadow

    def publish(self, run: Run, candidate: Candidate) -> Finished:
        """Beside a pinned champion the new version is published and does not serve; nor does it where it has to prove
        itself in shadow first, one version at a time."""
        versions = self._ledger.versions
        version, seq, place, why = versions.newest + 1, versions.seq, CHAMPION, ""
        if versions.pinned:
            place, why = "", f"; not promoted: version {versions.aliases[CHAMPION]} is pinned"
        elif self._shadow is not None and versions.champion is not None:
            waiting = versions.aliases.get(CHALLENGER)
            if waiting == versions.champion.version:  # promoted by hand: it waits for nothing
                waiting = None
            place = CHALLENGER if waiting is None else ""
            why = "; the challenger now" if place else f"; not the challenger: version {waiting} is, undecided"
        share = self._shadow.serve if place == CHALLENGER and self._shadow is not None else 0.0
        reason, outcome = candidate.reason + why, "promoted" if place == CHAMPION else "published"
        finished = replace(
            self.of(candidate, run, outcome, version=version, seq=seq + 1 + bool(place)),
            reason=reason,
        )
        self._writer.publish(
            candidate.onnx,
            lambda onnx: candidate.manifest(version, onnx),
            lambda manifest: [
                *publication(
                    self._pipeline, run, version, seq, manifest, by=self._name, why=reason, place=place, share=share
                ),
                finished,
            ],
        )
        self._ledger.wrote(finished.seq)
        return finished

    def publish_initial(self, candidate: Candidate) -> None:
        """The version that a pipeline starts with: of no run."""
        seq, place = self._ledger.versions.seq, "" if self._ledger.versions.pinned else CHAMPION
        self._writer.publish(
            candidate.onnx,
            lambda onnx: candidate.manifest(1, onnx),
            lambda manifest: publication(
                self._pipeline, _INITIAL, 1, seq, manifest, by=self._name, why=candidate.reason, place=place
            ),
        )
        self._ledger.wrote(seq + 1 + bool(place))

    def of(self, candidate: Candidate, run: Run, outcome: str, *, version: int = 0, seq: int = 0) -> Finished:
        """The outcome of a run that has a candidate."""
        return Finished(
            run=run.run,
            pipeline=self._pipeline,
            at=now(),
            outcome=outcome,
            reason=candidate.reason,
            tick=run.tick_text,
            version=version,
            seq=seq,
            rows=candidate.rows,
            holdout_rows=candidate.holdout_rows,
            metrics=dict(candidate.metrics),
            champion_metrics=dict(candidate.champion_metrics),
            seconds=dict(candidate.seconds),
            curves={name: list(values) for name, values in candidate.curves.items()},
            findings=candidate.findings,
        )
