"""What earlier runs and leaders left on this machine's disk, and what of it stays."""

import fcntl
import os

from headrace.infra.training import RUNS, cleaned
from headrace.trainer.run_folder import LOCK


def test_the_newest_runs_stay_by_their_age_and_not_by_their_name(tmp_path):
    for age in range(103):
        folder = tmp_path / RUNS / f"run-{age:03}"
        folder.mkdir(parents=True)
        os.utime(folder, (1e9 - age, 1e9 - age))
    assert cleaned(tmp_path, None) == []
    assert sorted(path.name for path in (tmp_path / RUNS).iterdir()) == [f"run-{age:03}" for age in range(100)]


def test_graphs_of_earlier_leaders_go_when_no_training_may_read_them(tmp_path):
    graphs = [tmp_path / f"champion-{version}.onnx" for version in (1, 2, 3)]
    for graph in graphs:
        graph.write_bytes(b"")
    folder = tmp_path / RUNS / "goes-on"
    folder.mkdir(parents=True)
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cleaned(tmp_path, graphs[2]) == [folder]
        assert sorted(tmp_path.glob("champion-*.onnx")) == graphs
    assert cleaned(tmp_path, graphs[2]) == []
    assert list(tmp_path.glob("champion-*.onnx")) == [graphs[2]]
