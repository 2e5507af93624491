"""Scheduled scoring as its users have it: a pipeline file, a scheduler, a subscriber, and what the commands show."""

import json

import pyarrow.parquet as pq
import pytest
from kit import produce, read_all, wait_for
from test_cli import Cli

FILE = """
from headrace import Binary, Cron, Every, Number, Pipeline, Score, Topic

customers = Topic("customers", id="id", time="at")
churn = Pipeline(
    name="churn",
    events=Topic("visits", id="id", time="at"),
    features=[Number("spent")],
    label=Binary(Topic("leavings", id="id", time="at"), "left", within="30d", if_absent=False),
    score=[
        Score(customers, at=Every("1s")),
        Score("file:///nowhere/customers.parquet", at=Cron("0 6 * * *", timezone="Europe/Berlin")),
    ],
)
"""
ROWS = [{"id": f"c{number}", "at": "2025-07-01T06:00:00Z", "spent": number} for number in range(3)]


@pytest.fixture
def cli(settings, tmp_path):
    (tmp_path / "churn.py").write_text(FILE)
    return Cli(settings, tmp_path)


def test_a_subscriber_sees_what_the_scheduler_scores_and_the_commands_show_it(cli):
    cli("apply", "churn.py")
    settings = cli.settings
    values = [{"key": row["id"], "value": json.dumps(row)} for row in ROWS]
    produce(settings, settings.prefixed("customers"), [*values, {"key": "c0", "value": None}])
    with cli.running("scheduler", "churn.py"):
        seen = cli("subscribe", "churn.py", "--from", "beginning", "--count", "4").lines
        assert [one["id"] for one in seen[:2]] == ["c1", "c2"]
        assert seen[0]["tick"] == seen[1]["tick"] < seen[2]["tick"]
        assert seen[0]["source"][0] == settings.prefixed("customers")
        ticks = [one for one in cli("runs", "list", "churn.py", "--output", "json").lines if one["state"] == "scored"]
        assert {(one["source"], one["rows"], one["rejected"]) for one in ticks} == {("customers", 2, 0)}
        shown = cli("runs", "show", "churn.py", ticks[0]["run"]).out
        assert "2 predicted, 0 dead letters" in shown

        cli("schedule", "pause", "churn.py", "--why", "holidays")
        answered = len(read_all(settings, settings.prefixed("headrace.runs")))
        cli("schedule", "resume", "churn.py")
        wait_for("a tick again", lambda: len(read_all(settings, settings.prefixed("headrace.runs"))) > answered + 4)

    times = cli("schedule", "list", "churn.py", "--after", "2025-07-01T00:00:00Z", "--count", "1").out
    assert "score customers" in times
    assert "2025-07-01T06:00:00+02:00" in times


def test_predictions_by_hand_go_where_they_are_told(cli):
    cli("apply", "churn.py")
    (cli.folder / "rows.jsonl").write_text("\n".join(map(json.dumps, [*ROWS, {"id": "bad"}])))
    cli("predict", "churn.py", "rows.jsonl", "--to", "out.parquet", code=3)
    assert pq.read_table(cli.folder / "out.parquet").column("prediction").to_pylist() == [0.5, 0.5, 0.5, None]
    said = cli("predict", "churn.py", "rows.jsonl", "--to", "topic:by-hand", "--output", "json", code=3)
    assert [one["row"] for one in said.lines] == [4]
    assert len(read_all(cli.settings, cli.settings.prefixed("by-hand"))) == 3
    assert "is there already" in cli.refused("predict", "churn.py", "rows.jsonl", "--to", "out.parquet")
