"""pipeline file → an archive of what it reaches: nothing more, nothing less, and always the same bytes."""

import hashlib
import io
import zipfile

import pytest

from headrace.infra.sources import archived, contents, reached, unpacked
from headrace.models.errors import BadInput

FILE = """
import numpy as np
import helpers
from nets import small
from nets.deep.layers import Dense
from learners import *

LEARNER = f"moody_net:{helpers.MOOD}"
OTHER = "named.only:build"
PROSE = "passwords and flights: not a module"
"""


@pytest.fixture
def folder(tmp_path):
    files = {
        "flights.py": FILE,
        "helpers.py": "import importlib\nMOOD = 'good'\nlate = importlib.import_module('loaded_late')\n",
        "loaded_late.py": "",
        "learners.py": "from . import broken\nimport broken\n",
        "broken.py": "print 'for another Python'",
        "moody_net.py": "import flights, torch\n",
        "named/only.py": "from .beside import x\nfrom . import beneath\n",
        "named/beside.py": "",
        "named/beneath.py": "",
        "nets/__init__.py": "",
        "nets/small.py": "from .deep import layers\n",
        "nets/deep/__init__.py": "",
        "nets/deep/layers.py": "from ...passwords import no\nclass Dense: ...\n",
        "nets/unused.py": "",
        "passwords.py": "SECRET = 'x'",
        "numpy.txt": "",
        ".env": "SECRET=x",
        "test_flights.py": "import flights\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_an_archive_has_what_the_pipeline_file_reaches(folder):
    assert set(contents(archived(folder / "flights.py"))) == {
        "flights.py",
        "helpers.py",
        "loaded_late.py",
        "learners.py",
        "broken.py",
        "moody_net.py",
        "named/only.py",
        "named/beside.py",
        "named/beneath.py",
        "nets/__init__.py",
        "nets/small.py",
        "nets/deep/__init__.py",
        "nets/deep/layers.py",
    }


def test_the_same_files_give_the_same_bytes_wherever_they_are_and_whenever_they_were_written(folder, tmp_path_factory):
    first = archived(folder / "flights.py")
    other = tmp_path_factory.mktemp("elsewhere")
    unpacked(first, other)
    (other / "nets" / "unused.py").write_text("x = 1")
    assert archived(other / "flights.py") == first
    (other / "helpers.py").write_text("MOOD = 'bad'")
    assert hashlib.sha256(archived(other / "flights.py")).digest() != hashlib.sha256(first).digest()


@pytest.mark.parametrize(
    "text", ["import_module('../secrets')", "__import__('a..b')", "'../x:y'", "from .... import x"]
)
def test_a_name_that_leads_out_of_the_folder_is_none(folder, text):
    place = folder / "nets" / "flights.py"
    place.write_text(text)
    assert list(reached(place)) == ["flights.py"]


@pytest.mark.parametrize("name", ["../flights.py", "/flights.py", "a/../../flights.py", "weights.bin", "a\\..\\b.py"])
def test_an_archive_from_the_wire_cannot_write_outside_of_its_folder(name):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(name, "x")
    with pytest.raises(BadInput, match="Python files in one folder"):
        contents(data.getvalue())


def test_an_archive_that_is_none_or_grows_without_end_is_refused():
    with pytest.raises(BadInput, match="archive that headrace made"):
        contents(b"PK nothing")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("flights.py", b"#" * (65 * 1024 * 1024))
    with pytest.raises(BadInput, match="expected up to"):
        contents(data.getvalue())
