"""Objects by reference: of a package, or of a Python file, which is imported as Python names it."""

import ast
import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()  # of the search path


def imported(reference: str, where: str) -> Any:
    """Return the object that ``"package.module:name"`` or ``"path/to/file.py:name"`` names."""
    source, name = _halves(reference, where)
    path = _file(source)
    module = _package_module(source, where) if path is None else _module_of(path, where)
    try:
        return getattr(module, name)
    except AttributeError:
        raise LookupError(
            f"{where}: expected {source!r} to define {name!r}, but it does not."
        ) from None


def called(reference: str, where: str, **options: Any) -> Any:
    """Call what a reference names, and return the result."""
    function = imported(reference, where)
    if not callable(function):
        raise TypeError(
            f"{where}: expected {reference!r} to be callable, got {type(function).__name__}. "
            "Write a function that returns it."
        )
    path = _file(_halves(reference, where)[0])
    with _beside(_named(path)[0]) if path else nullcontext():
        return function(**options)


def _halves(reference: str, where: str) -> tuple[str, str]:
    source, _, name = reference.rpartition(":")
    if not source or not name:
        raise ValueError(
            f"{where}: expected 'package.module:name' or 'path/to/file.py:name', got {reference!r}."
        )
    return source, name


def _file(source: str) -> Path | None:
    """Return the path of a source that is a file's, not a module's."""
    path = Path(source)
    return path.resolve() if path.suffix == ".py" or len(path.parts) > 1 else None


def _package_module(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise LookupError(
            f"{where}: expected a module that can be imported, got {name!r} ({error}). "
            "Run where it is on the Python path, install it, or give a file: path/to/file.py:name."
        ) from error


def _module_of(path: Path, where: str) -> ModuleType:
    """Import a file under the name it has from its own folder, as any module: once in a process."""
    if path.suffix != ".py" or not path.is_file():
        raise FileNotFoundError(f"{where}: expected a Python file, got {path}, which is none.")
    root, name = _named(path)
    with _beside(root):
        _check_name(name, path, path, where)
        if name not in sys.modules:
            for neighbour, file in _neighbours(path, root, {}).items():
                _check_name(neighbour, file, path, where)
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise LookupError(
                f"{where}: expected {path} to be importable, but it is not ({error}). What it "
                "imports is to be installed, or beside it."
            ) from error


@contextmanager
def _beside(root: Path) -> Iterator[None]:
    """Let modules of a folder be found, after all others, for as long as this lasts."""
    with _LOCK:
        sys.path.append(str(root))
        importlib.invalidate_caches()
        try:
            yield
        finally:  # the last one: the file may have put the folder there by itself
            with suppress(ValueError):
                del sys.path[len(sys.path) - 1 - sys.path[::-1].index(str(root))]


def _named(path: Path) -> tuple[Path, str]:
    """Return the folder from which a file is imported, and the name that it then has.

    Folders with an ``__init__.py`` are packages, and so is one whose file imports relatively.
    """
    parts = [] if path.stem == "__init__" else [path.stem]
    root = path.parent
    alone = not (root / "__init__.py").is_file()
    if alone and path.is_file() and any(level for _, level in _imports(path)):
        root, parts = root.parent, [root.name, *parts]
    while (root / "__init__.py").is_file():
        root, parts = root.parent, [root.name, *parts]
    return root, ".".join(parts)


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    """Say what a file imports: names of top-level modules, and levels of relative imports."""
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0], node.level


def _neighbours(path: Path, root: Path, found: dict[str, Path]) -> dict[str, Path]:
    """Find the modules of a folder that a file imports by name, and that those import."""
    for name, level in list(_imports(path)):
        files = (root / f"{name}.py", root / name / "__init__.py")
        file = next((file for file in files if file.is_file()), None)
        if level == 0 and file is not None and name not in found:
            found[name] = file
            _neighbours(file, root, found)
    return found


def _check_name(name: str, file: Path, asked: Path, where: str) -> None:
    """Refuse a name that is another module's: one of them would be taken for the other."""
    try:
        spec = importlib.util.find_spec(name)
        origin = None if spec is None else spec.origin
    except (ImportError, ValueError) as error:  # no module of such a name, or one that is silent
        origin = str(error)
    if origin is None or not Path(origin).exists() or not file.samefile(origin):
        raise LookupError(
            f"{where}: expected to import {file.name} for {asked} as {name!r}, but this is "
            f"{origin or 'no name that Python finds'}. Rename one of them, or use another process."
        )
