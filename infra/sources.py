"""pipeline file → it and every local module that it reaches, as one archive; the same files give the same bytes.

What is reached is read from the sources and not from what happens to be loaded: imports, and names such as
"flight_net:build" that are loaded only where a training runs. Python files under the pipeline file's folder alone:
no library, no data, nothing that could hold a secret unless it is in the code.
"""

import ast
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path, PurePosixPath

from headrace.models.errors import BadInput

_NAMED = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*):\w*")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip file knows: an archive has no times of its own
_LARGEST = 64 * 1024 * 1024  # bytes, unpacked
_LOADERS = frozenset({"import_module", "__import__"})


def archived(file: Path) -> bytes:
    """A zip file without compression: its bytes depend on nothing but the sources'."""
    data = BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        for name, path in sorted(reached(file).items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    return data.getvalue()


def reached(file: Path) -> dict[str, Path]:
    """By the path from the file's folder, with slashes."""
    folder, waiting = file.parent, [file]
    found: dict[str, Path] = {}
    while waiting:
        path = waiting.pop()
        name = path.relative_to(folder).as_posix()
        if name in found:
            continue
        found[name] = path
        package = path.parent.relative_to(folder).parts
        for dotted in _modules(path, package):
            waiting += _files(folder, dotted.split("."))
    return found


def contents(archive: bytes) -> dict[str, bytes]:
    """Raises BadInput for what is not an archive of sources: it came over the wire."""
    try:
        with zipfile.ZipFile(BytesIO(archive)) as opened:
            entries = opened.infolist()
            if sum(entry.file_size for entry in entries) > _LARGEST:
                raise BadInput(f"sources: expected up to {_LARGEST:,} bytes of Python files.")
            for entry in entries:
                place = PurePosixPath(entry.filename)
                if place.is_absolute() or ".." in place.parts or place.suffix != ".py" or "\\" in entry.filename:
                    raise BadInput(f"sources: expected Python files in one folder, got {entry.filename!r}.")
            return {entry.filename: opened.read(entry) for entry in entries}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise BadInput(f"sources: expected an archive that headrace made, {error}.") from error


def unpacked(archive: bytes, folder: Path) -> None:
    for name, data in contents(archive).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)


def _modules(path: Path, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names that the file imports or names; what is none of ours is not found later."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # for another Python, perhaps; it is kept, and what it would import is not known
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level) if level <= len(package):
                above = package[: len(package) - level + 1] if level else ()
                whole = ".".join([*above, *([module] if module else [])])
                yield from [whole, *[f"{whole}.{alias.name}" if whole else alias.name for alias in names]]
            case ast.Constant(value=str(text)) if named := _NAMED.fullmatch(text):
                yield named[1]
            case ast.Call(func=function, args=[ast.Constant(value=str(text)), *_]) if _name(function) in _LOADERS:
                yield text


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _files(folder: Path, parts: list[str]) -> Iterator[Path]:
    """The module and the packages above it, as far as they are here; a last part may be a name inside a module."""
    if not all(part.isidentifier() for part in parts):
        return
    for length in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:length])
        yield from filter(Path.is_file, (place / "__init__.py", place.with_name(place.name + ".py")))
