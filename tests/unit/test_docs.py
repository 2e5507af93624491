"""What documents say of the code, held against the code."""

import ast
import re
import tomllib
from pathlib import Path

import click
import pytest
import typer
from prometheus_client import CollectorRegistry

from headrace.infra.cli.app import app
from headrace.infra.names import ARTIFACTS, REGISTRY, RUNS
from headrace.infra.observe import Metrics

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
NOT_PARKED = {"not_arrow"}  # on served, where nobody but workers writes: passed over


def text(place: Path) -> str:
    return place.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text(page), flags=re.MULTILINE | re.DOTALL)


def fenced(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)


def first_arguments(error: str) -> set[str]:
    """The first argument of every call of an error class in our rooms."""
    found = set()
    for room in ("models", "streams", "scheduler", "infra"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(text(file))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == error:
                    first = node.args[0]
                    either = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
                    found |= {reason.value for reason in either if isinstance(reason, ast.Constant)}
    return found


def commands(command: click.Command, name: str) -> list[str]:
    if isinstance(command, click.Group):
        return [line for sub, child in command.commands.items() for line in commands(child, f"{name} {sub}")]
    return [name]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", ["flights.py", "flight_net.py"])
def test_the_readme_shows_the_demos_files_as_they_are(file):
    assert text(ROOT / "infra" / "demo" / file) in fenced(ROOT / "README.md", "python")


def test_every_reason_of_a_dead_letter_is_explained():
    table = text(DOCS / "topics.md").split("## Dead letters")[1]
    reasons = first_arguments("EventRejected") - NOT_PARKED
    assert len(reasons) > 5
    assert {reason for reason in reasons if f"| `{reason}` |" not in table} == set()
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) - reasons == set(), "reasons that no code gives"


def test_every_reason_of_a_refused_record_is_named():
    page = text(DOCS / "topics.md")
    assert {reason for reason in first_arguments("RegistryRefused") if f"`{reason}`" not in page} == set()


@pytest.mark.parametrize("command", commands(typer.main.get_command(app), "headrace"))
def test_every_command_is_in_the_reference(command):
    assert re.search(rf"`{command}[` ]", text(DOCS / "reference.md"))


def test_every_metric_is_in_the_reference_with_its_labels_and_no_other():
    table = text(DOCS / "reference.md").split("## Metrics")[1].split("## Logs")[0]
    documented = dict(re.findall(r"^\| `(headrace_\w+)` \| (\w+) \|", table, re.MULTILINE))
    registry = CollectorRegistry()
    Metrics(registry)
    served = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name: metric.type
        for metric in registry.collect()
    }
    assert documented == served


def test_every_law_names_tests_that_are_there_or_says_not_yet():
    page = text(DOCS / "laws.md")
    laws = re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)
    shown = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE))
    assert laws == list(shown) == [str(number) for number in range(1, 11)]
    for law, by in shown.items():
        named = re.findall(r"`(tests/[^`]+)`", by)
        assert named or "not yet" in by, law
        assert [place for place in named if not (ROOT / place).is_file()] == [], law


def test_every_topic_of_ours_is_in_the_table():
    table = text(DOCS / "topics.md")
    kinds = ("predictions", "served", "dead-letters", "history")
    topics = [*(f"<p>.{kind}" for kind in kinds), REGISTRY, ARTIFACTS, RUNS]
    assert [topic for topic in topics if f"| `{topic}` |" not in table] == []


def test_the_changelog_knows_this_version():
    version = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]["version"]
    assert f"## [{version}]" in text(ROOT / "CHANGELOG.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_in_pages_is_python(page):
    for block in fenced(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        place, _, anchor = target.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.is_relative_to(ROOT), target
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_need_nothing_from_outside_the_repository(page):
    assert "../shared" not in text(page)
