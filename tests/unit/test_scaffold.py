"""`headrace init`: what it writes works at once."""

import subprocess
import sys

import pytest

from headrace.infra.pipeline_file import read_pipeline
from headrace.infra.rows import read_rows
from headrace.infra.services.start.check import check
from headrace.infra.services.start.scaffold import init
from headrace.models.errors import BadInput


def test_the_scaffolded_test_passes_at_once(tmp_path):
    written = init(tmp_path / "new", "late-orders")
    assert [path.name for path in written] == [
        "late_orders.py",
        "late_orders_net.py",
        "test_late_orders.py",
        "events.jsonl",
        "labels.jsonl",
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path / "new", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_the_scaffolded_rows_check_without_a_complaint(tmp_path):
    init(tmp_path, "scaffolded-orders")
    pipeline = read_pipeline(str(tmp_path / "scaffolded_orders.py"))
    report = check(
        pipeline,
        read_rows(tmp_path / "events.jsonl"),
        read_rows(tmp_path / "labels.jsonl"),
        now_ms=1_743_552_000_000,  # 2025-04-02, just after the last delivery
    )
    assert report.findings == ()
    assert report.overfit is not None


def test_nothing_is_overwritten(tmp_path):
    mine = tmp_path / "labels.jsonl"
    mine.write_text("mine")
    with pytest.raises(BadInput, match=r"labels\.jsonl is there already"):
        init(tmp_path, "late-orders")
    assert [path.name for path in tmp_path.iterdir()] == ["labels.jsonl"]
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("name", ["", "Late", "1st", "late orders", "../late", "class", "é", "a" * 81])
def test_a_name_is_one_of_a_pipeline_and_of_a_module(tmp_path, name):
    with pytest.raises(BadInput, match="expected lower-case letters"):
        init(tmp_path, name)


@pytest.mark.parametrize("name", ["json", "torch", "headrace"])
def test_a_name_that_would_hide_a_module_is_refused(tmp_path, name):
    with pytest.raises(BadInput, match=f"would hide the Python module '{name}'"):
        init(tmp_path, name)


def test_a_directory_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="expected a directory"):
        init(tmp_path / "file", "late-orders")
