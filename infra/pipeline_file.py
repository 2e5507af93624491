"""`flights.py` or `flights.py:flight_delay` → pipelines. The file's folder is on the import path."""

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from headrace.models.errors import BadInput, HeadraceError
from headrace.models.pipeline import Pipeline


@dataclass(frozen=True, kw_only=True)
class PipelineFile:
    path: Path
    pipelines: dict[str, Pipeline]  # by the name in the file

    @property
    def source(self) -> str:
        return self.path.read_text()

    @property
    def git_commit(self) -> str:
        """The commit of the file's repository, with "-dirty" where the file differs from it; "" outside of one."""
        folder = self.path.parent
        try:
            head = subprocess.run(
                ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=5,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return head.stdout.strip()


def read_pipelines(place: str) -> PipelineFile:
    """Every pipeline in the file, or the one that is named behind the colon. Raises BadInput, DeclarationError."""
    text, _, wanted = place.partition(":")
    path = Path(text).resolve()
    if not path.is_file():
        raise BadInput(f"pipeline file: expected a Python file, {text!r} is not there. Try `headrace init`.")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = _executed(path)
    found = {name: value for name, value in vars(module).items() if isinstance(value, Pipeline)}
    if wanted and wanted not in found:
        raise BadInput(f"{text}: expected a pipeline named {wanted!r}, it has {sorted(found) or 'none'}.")
    if not found:
        raise BadInput(f"{text}: expected a Pipeline at module level, it has none. See `headrace init`.")
    return PipelineFile(path=path, pipelines={wanted: found[wanted]} if wanted else found)


def read_pipeline(place: str) -> Pipeline:
    """The one pipeline of the place; several are an error that names them."""
    return one_of(read_pipelines(place), place)


def one_of(file: PipelineFile, place: str) -> Pipeline:
    if len(file.pipelines) > 1:
        raise BadInput(f"{place} has several pipelines: add :{' or :'.join(file.pipelines)} to name one.")
    return next(iter(file.pipelines.values()))


def _executed(path: Path) -> object:
    """The file as a module under its own name, so that "flights:function" and pickles of its names work."""
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path}: expected a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except HeadraceError:
        raise
    except Exception as error:
        del sys.modules[path.stem]
        raise BadInput(f"{path.name} cannot be read: {type(error).__name__}: {error}") from error
    return module
