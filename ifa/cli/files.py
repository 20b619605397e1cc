"""A file of options, `ifa.toml`: what was not typed is read from it, and that is said."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from ifa.cli.arguments import note

FILE = Path("ifa.toml")

# What several commands may have; all else stands in the table of a command.
SHARED = ("model", "data", "weights", "config", "prepare", "limit", "device", "run", "quiet")


class Command(TyperCommand):
    """A command that reads a file of options for what was not typed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what was typed, with the file's options as defaults."""
        if "--help" not in args and ctx.parent is not None:
            path = ctx.obj if isinstance(ctx.obj, Path) else FILE
            if path is not FILE or path.is_file():
                ctx.default_map = self._options(path, ctx.parent.command.commands)
                ctx.meta["ifa.options"] = path
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Say what the file gave, and run the command."""
        names = [param.name for param in self.params]
        sources = {name: ctx.get_parameter_source(name) for name in names}
        given = [name for name, source in sources.items() if source and _of_file(source)]
        if given:
            note(f"{ctx.meta['ifa.options']} gives {', '.join(given)}")
        return super().invoke(ctx)

    def _options(self, path: Path, commands: Mapping[str, Any]) -> dict[str, Any]:
        known = {name: {param.name for param in one.params} for name, one in commands.items()}
        tables = checked(path, read(path), known)
        mine = {param.name: param for param in self.params}
        found = {name: tables[""][name] for name in tables[""] if name in mine}
        found |= tables.get(str(self.name), {})
        return {name: _for(mine[name], value) for name, value in found.items()}


def read(path: Path) -> dict[str, Any]:
    """Read a file of options."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"ifa: expected a file of options at {path}, got none.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"ifa: expected {path} to be TOML, but it is not: {error}. `ifa init` writes one."
        ) from error


def checked(path: Path, options: dict[str, Any], known: Mapping[str, set[str]]) -> dict[str, Any]:
    """Return command -> options, ``""`` for those of all; raise where a name is not known."""
    tables: dict[str, Any] = {"": {}}
    for name, value in options.items():
        if isinstance(value, dict):
            _check(path, "a table of a command", name, known)
            tables[name] = {key.replace("-", "_"): one for key, one in value.items()}
            for key in tables[name]:
                _check(path, f"an option of `ifa {name}` in [{name}]", key, known[name])
        else:
            key = name.replace("-", "_")
            owners = [command for command, names in known.items() if key in names]
            if owners and key not in SHARED:
                raise LookupError(
                    f"ifa: expected {key!r} in {path} in the table of a command, such as "
                    f"[{owners[0]}], got it before all tables, where options of all commands are."
                )
            _check(path, "an option of several commands", key, SHARED)
            tables[""][key] = value
    return tables


def _check(path: Path, what: str, name: str, known: Iterable[str]) -> None:
    names = sorted(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {near[0]!r}?" if near else f" There are {', '.join(names)}."
        raise LookupError(f"ifa: expected {what} in {path}, got {name!r}.{hint}")


def _for(param: Any, value: Any) -> Any:
    """Give a value as it would be typed: lists joined by commas, where the option is given once."""
    several = param.multiple if hasattr(param, "multiple") else param.nargs != 1
    if several:
        return value if isinstance(value, list) else [value]
    if not isinstance(value, list):
        return value
    if any("," in str(one) for one in value):
        raise ValueError(
            f"ifa: expected the list {param.name!r} to have no commas in it, got {value}. Name a "
            "file with one on each line."
        )
    return ",".join(map(str, value))


def _of_file(source: Any) -> bool:
    return source.name == "DEFAULT_MAP"
