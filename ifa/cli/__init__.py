"""Command line: parse, call one public function, say where the result went.

One file for each command; `arguments` for what several of them take, `files` for `ifa.toml`.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ifa.cli.analyze import analyze
from ifa.cli.basis import basis
from ifa.cli.claims import claims
from ifa.cli.demo import demo
from ifa.cli.diagnose import diagnose
from ifa.cli.evaluate import evaluate
from ifa.cli.explain import explain
from ifa.cli.files import FILE, Command
from ifa.cli.init import init
from ifa.cli.layers import layers
from ifa.cli.maps import maps
from ifa.cli.report import report
from ifa.cli.runs import commit, merge, open, verify

app = typer.Typer(
    name="ifa",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(init)
# those that read the file of options, in the order of `ifa --help`
_READ = (
    layers,
    analyze,
    maps,
    explain,
    evaluate,
    diagnose,
    claims,
    report,
    basis,
    commit,
    open,
    verify,
    merge,
)
for _command in _READ:
    app.command(cls=Command)(_command)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("ifa"))
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    options: Annotated[
        Path | None,
        typer.Option(
            "--options", help=f"A file of options, for what is not typed; {FILE} if it is there"
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and leave")
    ] = False,
) -> None:
    """Integrated Feature Analysis: what a trained network uses, over a population of samples."""
    context.obj = options


def main(argv: list[str] | None = None) -> int:
    """Run the command line; what a user can mend is one message on standard error."""
    try:
        with _log():
            app(argv)
    except SystemExit as done:  # of the parser: 0 at the end or after help, 2 for wrong usage
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    except (ValueError, LookupError, TypeError, OSError, ImportError, RuntimeError) as error:
        away = isinstance(error.__cause__, ImportError) and sys.flags.safe_path
        note = " This directory is not looked in: PYTHONSAFEPATH, or -P, is set." if away else ""
        typer.echo(f"Error: {error}{note}", err=True)
        return 1
    return 0


@contextmanager
def _log() -> Iterator[None]:
    """Show on standard error what the library logs, such as how weights were found."""
    handler, log = logging.StreamHandler(), logging.getLogger("ifa")
    handler.setFormatter(logging.Formatter("Note: %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
