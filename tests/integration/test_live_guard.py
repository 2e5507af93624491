"""Live numbers of several versions on the same rows, through real topics: a bad version goes back, a better challenger
takes over, and metrics are by version and segment."""

from dataclasses import replace as changed

import msgspec
import numpy as np
import pytest
from kit import Facts, linear, manifest, produce, read_all
from msgspec.structs import replace
from test_drift_trigger import woken
from test_leader import Scheduler, Scripted
from test_swap import PIPELINE, Publisher

from headrace.infra.live import LiveLabels
from headrace.infra.names import REGISTRY, RUNS, Names
from headrace.infra.observe import Metrics
from headrace.infra.topics import apply
from headrace.models import registry
from headrace.models.drift import reference_of
from headrace.models.durations import iso
from headrace.models.facts import Guarded, LabelsSeen, LiveMetric, PairMeasured, Refused, Watched
from headrace.models.features import Category
from headrace.models.records import Aliased, Archived, Promoted, Published, Requested
from headrace.models.session import Session
from headrace.scheduler.attempts import Candidate
from headrace.scheduler.rollback import Rollback, Shadow
from headrace.scheduler.triggers import Degraded
from headrace.streams.codec import clock_ms
from headrace.streams.served import encode_served, served_batch, served_schema

GUARDED = changed(
    PIPELINE, features=[*PIPELINE.features, Category("carrier")], rollback=Rollback(), segments=["carrier"]
)
RIGHT, WRONG = [2.0, 0.0], [-2.0, 0.0]  # the label is whether distance is above 0, with some noise


def graph(weights):
    return linear(weights, categories=1)


class Upstream:
    """Serves rows by a version as a worker logs them, and says later what came of them."""

    def __init__(self, settings, pipeline, seed=1):
        self.settings, self.pipeline, self.names = settings, pipeline, Names(settings.prefix, pipeline)
        self.random, self.count = np.random.default_rng(seed), 0

    def serve(self, count, *, by, weights, labelled=True):
        schema = self.pipeline.schema
        distances = self.random.normal(0, 1, count)
        carriers = np.array(["AA", "UA"], object)[self.random.integers(0, 2, count)]
        columns = {"distance": distances, "wind": np.zeros(count), "carrier": carriers}
        scores = Session(graph(weights), schema).predict(columns, count)
        ids, now = [f"e{self.count + number}" for number in range(count)], clock_ms()
        batch = served_batch(
            served_schema(schema.columns),
            ids=ids,
            times=np.full(count, now, np.int64),
            partition=0,
            offsets=np.arange(self.count, self.count + count, dtype=np.int64),
            version=by,
            scores=scores,
            columns=columns,
        )
        produce(self.settings, self.names.topics.served, [{"value": value} for value, _, _ in encode_served(batch)])
        if labelled:
            late = (distances + self.random.normal(0, 0.5, count)) > 0
            rows = [{"id": each, "at": iso(now), "late": bool(one)} for each, one in zip(ids, late, strict=True)]
            produce(self.settings, self.names.labels, [{"value": msgspec.json.encode(row)} for row in rows])
        self.count += count


@pytest.fixture
def made(settings):
    """A pipeline's leader with live numbers; closed at the end."""
    things = []

    def make(pipeline, training=None):
        apply(settings, pipeline, 1)
        facts = Facts()
        live = LiveLabels(settings, Names(settings.prefix, pipeline), facts)
        scheduler = Scheduler(settings, training, pipeline=pipeline, live=live, started=None)
        things.extend([scheduler, live])
        scheduler.until("to lead", lambda: scheduler.log.leads)
        scheduler.leader.step()
        return scheduler, facts

    yield make
    for thing in things:
        thing.close()


class Candidates(Scripted):
    """A training port: every run makes the same graph, and the gate lets it pass."""

    def __init__(self, pipeline, weights):
        super().__init__()
        self.pipeline, self.weights = pipeline, weights

    def start(self, run, _at, _versions, _ranges):
        self.runs.append(run)
        return Attempt(self, run)


class Attempt:
    def __init__(self, training, run):
        self.training, self.run = training, run

    def wait(self, _seconds):
        pipeline, run = self.training.pipeline, self.run
        return Candidate(
            promote=True,
            reason="good",
            onnx=graph(self.training.weights),
            manifest=lambda version, blob: manifest(pipeline, version, blob, run=run.run, tick=run.tick_text),
        )


def published(settings, pipeline, *graphs, **said):
    publisher = Publisher(settings, pipeline)
    for weights in graphs:
        publisher.publish(graph(weights), change=lambda manifest: replace(manifest, **said))
    return publisher


def ask(settings, names, run):
    request = Requested(run=run, pipeline=names.pipeline.name, at=clock_ms(), by="test", on_demand=True)
    produce(settings, names.of(RUNS), [{"value": msgspec.json.encode(request)}])


def moves(settings):
    found = [registry.decode(message.value()) for message in read_all(settings, settings.prefixed(REGISTRY))]
    return [record for record in found if not isinstance(record, Published)]


def test_a_version_that_is_worse_on_live_labels_goes_back_and_is_barred(settings, made):
    apply(settings, GUARDED, 1)
    published(settings, GUARDED, RIGHT, WRONG)
    scheduler, facts = made(GUARDED)
    upstream = Upstream(settings, GUARDED)
    upstream.serve(300, by=2, weights=WRONG)
    scheduler.until("the rollback", lambda: len(moves(settings)) == 4)
    back, out = moves(settings)[2:]
    assert isinstance(back, Promoted)
    assert (back.version, back.move, back.by) == (1, "rollback", "guard")
    assert back.why.startswith("its brier is 0.")
    assert isinstance(out, Archived)
    assert out.version == 2
    (fact,) = scheduler.facts.of(Guarded)
    assert (fact.action, fact.version, fact.other) == ("rolled_back", 2, 1)
    upstream.serve(2_000, by=1, weights=RIGHT)
    scheduler.until("labels of what serves now", lambda: any(one.version == 1 for one in facts.of(LiveMetric)))
    assert len(moves(settings)) == 4


def test_a_version_that_is_better_stays_and_its_predecessor_is_measured_beside_it(settings, made):
    apply(settings, GUARDED, 1)
    published(settings, GUARDED, WRONG, RIGHT)
    scheduler, facts = made(GUARDED)
    Upstream(settings, GUARDED).serve(3_000, by=2, weights=RIGHT)
    fact = scheduler.until("the pair", lambda: next(iter(facts.of(PairMeasured)), None))
    assert (fact.why, fact.version, fact.other, fact.loss) == ("rollback", 2, 1, "brier")
    assert fact.high < 0
    auc = {one.version: one.value for one in facts.of(LiveMetric) if one.metric == "roc_auc" and not one.segment}
    assert auc[2] > 0.9
    assert auc[1] == pytest.approx(1 - auc[2], abs=1e-6)  # it would have said the opposite
    segments = {one.segment for one in facts.of(LiveMetric) if one.version == 2}
    assert segments == {"", "carrier=AA", "carrier=UA"}
    (seen,) = facts.of(LabelsSeen)[-1:]
    assert seen.counts["joined"] == 3_000
    assert len(moves(settings)) == 2


def test_evidence_survives_the_leader(settings, made):
    apply(settings, GUARDED, 1)
    published(settings, GUARDED, RIGHT, WRONG)
    first, _ = made(GUARDED)
    upstream = Upstream(settings, GUARDED)
    upstream.serve(300, by=2, weights=WRONG, labelled=False)
    for _ in range(5):
        first.leader.step()
    first.close()
    upstream.random = np.random.default_rng(1)  # the labels of the same rows, later
    distances = upstream.random.normal(0, 1, 300)
    rows = [{"id": f"e{n}", "at": iso(clock_ms()), "late": bool(d > 0)} for n, d in enumerate(distances)]
    produce(settings, upstream.names.labels, [{"value": msgspec.json.encode(row)} for row in rows])
    following, _ = made(GUARDED)
    following.until("the rollback", lambda: len(moves(settings)) == 4)


def test_before_any_label_odd_scores_that_its_predecessor_has_not_take_it_back(settings, made):
    apply(settings, GUARDED, 1)
    columns = {"distance": np.zeros(2_000), "wind": np.zeros(2_000), "carrier": np.full(2_000, "AA", object)}
    random = np.random.default_rng(4)
    usual = 1 / (1 + np.exp(-2 * random.normal(0, 1, 2_000)))
    reference = reference_of(GUARDED.schema, columns, usual)
    published(settings, GUARDED, RIGHT, [9.0, 0.0], reference=reference)  # all but 0 and 1, as no held-out row was
    scheduler, _ = made(GUARDED)
    Upstream(settings, GUARDED).serve(2_000, by=2, weights=[9.0, 0.0], labelled=False)
    scheduler.until("the rollback", lambda: len(moves(settings)) == 4)
    assert "over 2,000 rows it answers 0." in moves(settings)[2].why


def test_what_passed_the_gate_waits_in_shadow_and_serves_when_labels_say_so(settings, made):
    shadowed = changed(GUARDED, shadow=Shadow(), rollback=None)
    apply(settings, shadowed, 1)
    publisher = published(settings, shadowed, WRONG)
    scheduler, _ = made(shadowed, Candidates(shadowed, RIGHT))
    ask(settings, publisher.names, "train")
    finished = scheduler.answer("train")
    assert (finished.outcome, finished.version) == ("published", 2)
    assert finished.reason.endswith("; the challenger now")
    ask(settings, publisher.names, "again")
    assert "not the challenger: version 2 is, undecided" in scheduler.answer("again").reason
    upstream = Upstream(settings, shadowed)
    upstream.serve(400, by=1, weights=WRONG)
    scheduler.until("the promotion", lambda: len(moves(settings)) == 4)
    aliased, promoted, freed = moves(settings)[1:]
    assert isinstance(aliased, Aliased)
    assert (aliased.alias, aliased.version) == ("challenger", 2)
    assert (promoted.version, promoted.move, promoted.by) == (2, "promote", "guard")
    assert (freed.alias, freed.version) == ("challenger", None)


def test_a_challenger_that_is_worse_is_dropped_and_never_served(settings, made):
    shadowed = changed(GUARDED, shadow=Shadow(), rollback=None)
    apply(settings, shadowed, 1)
    publisher = published(settings, shadowed, RIGHT)
    scheduler, _ = made(shadowed, Candidates(shadowed, WRONG))
    ask(settings, publisher.names, "train")
    scheduler.answer("train")
    Upstream(settings, shadowed).serve(400, by=1, weights=RIGHT)
    scheduler.until("the end of the shadow", lambda: len(moves(settings)) == 3)
    assert moves(settings)[-1].version is None
    assert {one.version for one in moves(settings) if isinstance(one, Promoted)} == {1}


def test_a_degraded_champion_makes_one_run(settings, made):
    watched = changed(GUARDED, retrain=[Degraded(by=0.02, rows=500)], rollback=None)
    apply(settings, watched, 1)
    published(settings, watched, RIGHT, metrics={"brier": 0.08}, holdout_rows=5_000)
    scheduler, _ = made(watched, Candidates(watched, RIGHT))
    upstream = Upstream(settings, watched)
    upstream.serve(1_500, by=1, weights=RIGHT)
    woken(scheduler)
    assert scheduler.training.runs == []
    upstream.serve(3_000, by=1, weights=WRONG)  # the world turned round: what it answers is as before, labels are not
    woken(scheduler)
    (run,) = scheduler.training.runs
    assert run.trigger.startswith("version 1's brier is 0.")
    woken(scheduler)
    assert len(scheduler.training.runs) == 1


def test_a_version_that_cannot_be_had_is_left_out_and_is_a_fact(settings, made):
    apply(settings, GUARDED, 1)
    publisher = published(settings, GUARDED, RIGHT)
    publisher.publish(b"no graph")
    scheduler, facts = made(GUARDED)
    upstream = Upstream(settings, GUARDED)
    upstream.serve(1_500, by=1, weights=RIGHT)
    scheduler.until("live metrics", lambda: facts.of(LiveMetric))
    assert [fact.version for fact in facts.of(Refused)] == [2]
    assert facts.of(Watched)[-1].versions == (0, 1, 2)


def test_metrics_of_versions_that_are_gone_are_gone():
    metrics = Metrics()
    for version in (1, 2):
        metrics(Watched(pipeline="delay", versions=(version, version + 1)))
        metrics(LiveMetric(pipeline="delay", version=version, metric="roc_auc", value=0.7, rows=1_000))
    found = {
        (sample.name, sample.labels["version"])
        for each in metrics.registry.collect()
        for sample in each.samples
        if each.name.startswith("headrace_live_metric")
    }
    assert found == {("headrace_live_metric", "2"), ("headrace_live_metric_rows", "2")}
