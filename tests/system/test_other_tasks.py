"""The loop on other questions than yes or no: real flights in, answers out, trainings, gates and swaps; what it learns
is measured on what was served, against labels that came later."""

import json

import msgspec
import numpy as np
import pytest
from kit import read_all, sources

from headrace.infra.demo import run as demo
from headrace.infra.demo.data import START, load_flights
from headrace.infra.names import Names
from headrace.infra.pipeline_file import one_of, read_pipelines
from headrace.infra.processes.together import running
from headrace.infra.replay import Replay, Rows, feature_store
from headrace.infra.services.compare.model_diff import compare
from headrace.infra.services.data.explain import explain
from headrace.infra.services.versions.catalog import version
from headrace.infra.topics import apply
from headrace.models.durations import to_ms
from headrace.models.metrics import mae, measure, rmse, roc_auc

DAYS = 29  # trainings at the ends of the second, third and fourth week


@pytest.fixture
def replayed(settings):
    """Replays the flights through processes; gives the pipeline's names and what became of its runs."""

    def replay(file_name, days=DAYS):
        flights = load_flights(days)
        file = read_pipelines(str(demo.FILE.with_name(file_name)))
        names = Names(settings.prefix, one_of(file, file_name))
        apply(settings, names.pipeline, 2)
        rows = Rows(
            events=flights["flights"], labels=flights["arrivals"], side=[flights["departures"], flights["weather"]]
        )
        with running(settings, [file], workers=1, clock=False, started=to_ms(START)) as children:
            replay = Replay(settings, names, feature_store(settings, names), children.check)
            runs = [d.finished for d in replay.run(rows, longest_ms=86_400_000, start=to_ms(START)) if d.finished]
            replay.close()
        return names, runs

    return replay


def served_and_labelled(settings, names):
    """Predictions that have a label by now, and these labels, minutes: in one order."""
    answers = read_all(settings, names.topics.predictions)
    assert len(set(sources(answers))) == len(answers) == len(read_all(settings, names.events))
    assert read_all(settings, names.topics.dead_letters) == []
    minutes = {row["flight_id"]: row["arr_delay"] for row in map(_decoded, read_all(settings, names.labels))}
    answers = [answer for answer in map(_decoded, answers) if answer["id"] in minutes]
    return answers, np.array([minutes[answer["id"]] for answer in answers], float)


def _decoded(message):
    return msgspec.json.decode(message.value())


def test_minutes_of_delay_are_learnt_served_and_better_than_their_mean(settings, replayed):
    names, runs = replayed("minutes.py")
    assert [run.outcome for run in runs] == ["failed", "promoted", "promoted", "promoted"], runs
    assert all({"rmse", "mae"} <= run.metrics.keys() for run in runs[1:])
    manifest = version(settings, names, None).manifest
    assert (manifest.version, manifest.task) == (3, "regression")
    assert manifest.golden is not None
    assert "score" in manifest.reference.columns

    answers, minutes = served_and_labelled(settings, names)
    assert all(answer["decision"] is None for answer in answers)
    served = np.array([answer["prediction"] for answer in answers])
    versions = np.array([answer["version"] for answer in answers])
    learnt = versions > 0
    mean = np.full(int(learnt.sum()), minutes[~learnt].mean())  # of what came before: what a constant would know
    found = {
        "rows": int(learnt.sum()),
        "rmse": rmse(minutes[learnt], served[learnt]),
        "rmse of the mean": rmse(minutes[learnt], mean),
        "mae": mae(minutes[learnt], served[learnt]),
        "mae of the mean": mae(minutes[learnt], mean),
    }
    print(json.dumps(found))  # noqa: T201  what a reader of the test wants to know
    assert found["rmse"] < 0.97 * found["rmse of the mean"]
    assert found["mae"] < 1.05 * found["mae of the mean"]  # least squares answer means; a delay's median is far lower


def test_early_on_time_or_late_is_learnt_served_and_better_than_the_shares(settings, replayed):
    names, runs = replayed("punctuality.py")
    assert [run.outcome for run in runs] == ["failed", "promoted", "promoted", "promoted"], runs
    assert runs[-1].metrics.keys() == {"accuracy", "log_loss", "brier", "macro_f1"}
    classes = names.pipeline.label.classes
    manifest = version(settings, names, None).manifest
    assert (manifest.version, manifest.task, manifest.classes) == (3, "multiclass", classes)
    assert manifest.golden.classes == 3

    answers, minutes = served_and_labelled(settings, names)
    for answer in answers[:: len(answers) // 100]:
        assert list(answer["probabilities"]) == list(classes)
        assert answer["prediction"] == answer["probabilities"][answer["label"]] == max(answer["probabilities"].values())
        assert sum(answer["probabilities"].values()) == pytest.approx(1)
    labels = np.array([names.pipeline.label.value({"arr_delay": value}) for value in minutes])
    scores = np.array([list(answer["probabilities"].values()) for answer in answers])
    learnt = np.array([answer["version"] for answer in answers]) > 0
    shares = np.bincount(labels[~learnt].astype(int), minlength=3) / np.sum(~learnt)
    live = measure("multiclass", labels[learnt], scores[learnt])
    constant = measure("multiclass", labels[learnt], np.tile(shares, (int(learnt.sum()), 1)))
    print(json.dumps({"rows": int(learnt.sum()), "live": live, "shares": constant}))  # noqa: T201  as above
    assert live["log_loss"] < constant["log_loss"] - 0.01
    assert live["macro_f1"] > constant["macro_f1"]

    compared = compare(settings, names, "2", "3", rows=2_000)
    assert compared.task == "multiclass"
    assert {one.metric for one in compared.difference.metrics} == {"accuracy", "log_loss", "brier", "macro_f1"}
    assert 0 < compared.difference.changed_decisions < 0.5
    assert compared.difference.tau is None

    topic, partition, offset = answers[-1]["source"]
    explained = explain(settings, names, f"{topic}/{partition}/{offset}", look_back=1_000)
    assert explained.rerun.verdict.startswith("equal")
    assert explained.rerun.score == answers[-1]["prediction"]


def test_a_model_that_goes_on_learning_is_moved_by_each_days_rows_alone(settings, replayed):
    names, runs = replayed("online.py", days=14)
    assert [run.outcome for run in runs if run.outcome not in ("promoted", "rejected")] == ["failed"] * 2, runs
    promoted = [run for run in runs if run.outcome == "promoted"]
    assert len(promoted) >= 6, runs
    manifests = [version(settings, names, run.version).manifest for run in promoted]
    assert manifests[0].hyperparameters["warm_start"] == "from scratch: no version serves yet"
    for manifest in manifests[1:]:
        assert manifest.hyperparameters["warm_start"] == f"version {manifest.parent}"
        assert manifest.hyperparameters["epoch_rows"] <= manifest.rows
    assert manifests[-1].hyperparameters["epoch_rows"] < manifests[-1].rows / 2  # a day's, and as many old ones
    rows = [manifest.hyperparameters["rows"] for manifest in manifests]
    assert rows == sorted(set(rows))
    spent = [run.seconds["train"] for run in promoted[1:]]
    print(json.dumps({"trainings": len(spent), "learning, s": sorted(spent)[len(spent) // 2]}))  # noqa: T201  as above

    answers, minutes = served_and_labelled(settings, names)
    learnt = np.array([answer["version"] for answer in answers]) > 0
    scores, late = np.array([answer["prediction"] for answer in answers]), (minutes >= 15).astype(float)
    assert roc_auc(late[learnt], scores[learnt]) > 0.6
