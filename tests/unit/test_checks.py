"""What is noticed of training rows and of a candidate, on rows in which it is known to be."""

from dataclasses import replace

import numpy as np
import pytest

from headrace import Checks
from headrace.models.errors import DeclarationError, RunFailed
from headrace.models.features import Column
from headrace.models.protocols import Dataset, Evidence
from headrace.models.schema import Schema
from headrace.trainer.checks import after_training, before_training, failing
from headrace.trainer.matching import Counts

SCHEMA = Schema(
    (
        Column("x", "number"),
        Column("wind", "number", nullable=True),
        Column("carrier", "category", nullable=True),
    )
)


def dataset(rows=4_000, seed=1, task="binary", **columns):
    random = np.random.default_rng(seed)
    x = random.normal(size=rows)
    made = {
        "x": x,
        "wind": np.where(random.random(rows) < 0.2, np.nan, random.gamma(2, 3, rows)),
        "carrier": random.choice(np.array(["UA", "AA", None], object), rows),
    }
    label = x + random.normal(size=rows)
    labels = label if task == "regression" else (label > 0.8).astype(np.float64)
    return Dataset(columns=made | columns, labels=labels, times=np.arange(rows), task=task)


TRAIN, HOLDOUT = dataset(), dataset(800, 2)
DEFAULT = Checks()


def found(train=TRAIN, holdout=HOLDOUT, checks=DEFAULT, same_id=0):
    return before_training(checks, SCHEMA, train, holdout, Counts(joined=4_800, same_id=same_id))


def names(findings):
    return [finding.name for finding in findings]


def with_column(data, **columns):
    return replace(data, columns=dict(data.columns) | columns)


def test_healthy_rows_have_no_findings_over_many_worlds():
    assert [found(dataset(2_000, seed), dataset(500, 1_000 + seed)) for seed in range(40)] == [[]] * 40


# ── leakage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_number_that_knows_the_label_is_named_with_its_auc():
    leak = TRAIN.labels * 100 + np.random.default_rng(0).normal(size=len(TRAIN))
    (one,) = [each for each in found(with_column(TRAIN, wind=leak)) if each.name == "leakage"]
    assert one.severity == "warning"
    assert one.text == "column 'wind' alone knows the label (AUC 1.000 of 4,000 rows): is it known by then?"
    (other,) = [each for each in found(with_column(TRAIN, wind=-leak)) if each.name == "leakage"]
    assert other.text == one.text


def test_what_is_missing_may_know_the_label():
    gone = np.where(TRAIN.labels > 0.5, np.nan, 3.0 + TRAIN.columns["x"])
    (one,) = [each for each in found(with_column(TRAIN, wind=gone)) if each.name == "leakage"]
    assert one.text.startswith("whether there is a value in column 'wind' alone knows the label")


def test_a_category_that_knows_the_label_is_found_and_one_that_names_rows_is_not_taken_for_it():
    says = np.array(["late" if label else "on time" for label in TRAIN.labels], object)
    (one,) = [each for each in found(with_column(TRAIN, carrier=says)) if each.name == "leakage"]
    assert "column 'carrier' alone knows" in one.text
    tail = np.array([f"N{row}" for row in range(len(TRAIN))], object)
    assert "leakage" not in names(found(with_column(TRAIN, carrier=tail)))


def test_a_regressions_label_in_disguise_is_found():
    data = dataset(task="regression")
    leaky = with_column(data, wind=data.labels * 60)
    assert "leakage" in names(found(leaky, dataset(800, 2, "regression")))
    assert "leakage" not in names(found(data, dataset(800, 2, "regression")))


def test_how_telling_is_too_telling_may_be_said():
    assert "leakage" not in names(found())
    assert "leakage" in names(found(checks=Checks(leakage_auc=0.7)))  # x alone has 0.8


# ── columns ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("columns", "name", "text"),
    [
        ({"x": np.full(4_000, 2.0)}, "constant_column", "column 'x' has one value only"),
        ({"wind": np.full(4_000, np.nan)}, "constant_column", "column 'wind' is missing in every row"),
        ({"carrier": np.full(4_000, "UA", object)}, "constant_column", "column 'carrier' has one value only"),
        (
            {"x": np.where(np.arange(4_000) < 3, 3e9, TRAIN.columns["x"])},
            "exploding_column",
            "column 'x' has 3e+09, 1,",
        ),
        (
            {"x": np.where(np.arange(4_000) < 3, np.inf, TRAIN.columns["x"])},
            "exploding_column",
            "column 'x' is infinite in 3 of 4,000 rows",
        ),
        (
            {"carrier": np.array([f"N{row}" for row in range(4_000)], object)},
            "identifying_column",
            "column 'carrier' has 4000 values in 4000 rows",
        ),
    ],
)
def test_columns_that_teach_nothing_or_too_much_are_named(columns, name, text):
    (one,) = [each for each in found(with_column(TRAIN, **columns)) if each.name == name]
    assert one.text.startswith(text)


def test_heavy_tails_are_no_explosion():
    amounts = np.random.default_rng(0).pareto(1.5, 4_000) * 10
    assert "exploding_column" not in names(found(with_column(TRAIN, x=amounts)))


def test_of_many_columns_a_few_are_named():
    schema = Schema(tuple(Column(f"c{number}", "number") for number in range(30)))
    data = Dataset(
        columns={column.name: np.zeros(100) for column in schema.columns},
        labels=np.arange(100) % 2.0,
        times=np.arange(100),
        task="binary",
    )
    texts = [each.text for each in before_training(Checks(), schema, data, data.take(slice(0, 0)), Counts())]
    assert len(texts) == 6
    assert texts[-1] == "and 25 columns more."


# ── ids, the holdout ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_that_share_an_id_are_counted():
    (one,) = found(same_id=12)
    assert (one.name, one.text[:53]) == ("duplicate_ids", "12 of 4,800 rows have the id of another one, and so i")


def test_a_label_rate_that_moved_is_found_and_chance_is_not():
    rare = replace(HOLDOUT, labels=np.where(np.arange(800) % 3, 0.0, HOLDOUT.labels))
    assert names(found(holdout=rare)) == ["label_rate"]
    assert "label_rate" not in names(found(holdout=rare.take(slice(0, 55))))  # too few to be sure
    higher = dataset(800, 2, "regression")
    (one,) = found(dataset(task="regression"), replace(higher, labels=higher.labels + 1))
    assert one.text.startswith("the label's mean moved from ")


def test_columns_that_drift_from_the_training_rows_are_named_farthest_first():
    moved = with_column(HOLDOUT, x=HOLDOUT.columns["x"] + 1.5, wind=HOLDOUT.columns["wind"] * 1.609)
    (one,) = [each for each in found(holdout=moved, checks=Checks(drift_psi=0.5)) if each.name == "drift"]
    assert one.text.startswith("1 of 3 columns lie otherwise")
    (one,) = [each for each in found(holdout=moved) if each.name == "drift"]
    assert one.text.startswith("2 of 3 columns lie otherwise in the holdout than in the training rows, most of all x (")


# ── which are errors, and one's own ───────────────────────────────────────────────────────────────────────────────────


def test_a_finding_that_is_declared_an_error_ends_the_run_by_its_name():
    findings = found(same_id=3, checks=Checks(errors=["duplicate_ids"]))
    assert [finding.severity for finding in findings] == ["error"]
    failed = failing(findings)
    assert (failed.reason, failed.detail[:12]) == ("duplicate_ids", "3 of 4,800 r")
    assert failing(found(same_id=3)) is None
    assert found(same_id=3, checks=Checks(off=["duplicate_ids"])) == []


def young_enough(train, holdout):
    old = holdout.times.max() < 10_000
    return f"{len(train):,} rows, the newest at {holdout.times.max()}: old." if old else None


def broken(train, _holdout):
    return train.nothing


def test_a_check_of_your_own_stands_beside_them():
    (one,) = found(checks=Checks(own=["test_checks:young_enough"]))
    assert (one.name, one.severity, one.text) == ("young_enough", "warning", "4,000 rows, the newest at 799: old.")
    checks = Checks(own=[young_enough], errors=["young_enough"])
    assert failing(found(checks=checks)).reason == "young_enough"
    assert found(checks=Checks(own=[young_enough], off=["young_enough"])) == []
    with pytest.raises(RunFailed, match="check_raised: broken: AttributeError"):
        found(checks=Checks(own=[broken]))


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"errors": ["leaks"]}, "Checks.errors"),
        ({"off": "drift"}, "Checks.off"),
        ({"own": ["my checks"]}, "Checks.own"),
        ({"own": [7]}, "Checks.own"),
        ({"leakage_auc": 0.4}, "Checks.leakage_auc"),
        ({"drift_psi": True}, "Checks.drift_psi"),
        ({"exploding": 0}, "Checks.exploding"),
    ],
)
def test_a_check_that_is_none_is_refused_by_its_field(wrong, where):
    with pytest.raises(DeclarationError, match=where):
        Checks(**wrong)


# ── after it ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_candidate_that_does_not_beat_a_constant_is_found(task):
    train, holdout = dataset(task=task), dataset(800, 2, task)
    constant = np.full(800, train.labels.mean())

    def judged(scores, checks=DEFAULT):
        evidence = Evidence(task=task, labels=holdout.labels, candidate=scores, champion=constant, champion_version=0)
        return after_training(checks, evidence, train)

    x = holdout.columns["x"]
    good = 1 / (1 + np.exp(-(2 * x - 1.6))) if task == "binary" else x
    assert judged(good) == []
    (one,) = judged(1 - good if task == "binary" else -good)
    assert one.name == "worse_than_baseline"
    assert "log_loss" in one.text if task == "binary" else "rmse" in one.text
    assert judged(1 - good, Checks(off=["worse_than_baseline"])) == []
    assert failing(judged(1 - good, Checks(errors=["worse_than_baseline"]))).reason == "worse_than_baseline"
