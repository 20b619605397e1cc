"""The command `ifa demo`."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    directory: Annotated[Path, typer.Argument(help="Where everything goes")] = Path("ifa-demo"),
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bars")] = False,
) -> None:
    """Analyze a small network on real handwritten digits, offline, in about a minute.

    Trains a convolutional network on half of scikit-learn's 1 797 digits; analyzes the other half
    at its last convolutional layer with fullcam; makes maps on the common scale and one by one;
    keeps 5, 10, 25 and 50 % of the channels and measures the accuracy; correlates the level of maps
    with the logit. Writes weights, a verified run, and pictures. Running it again continues, or
    says that it is done; it never destroys a run.
    """
    from ifa.demo import analyze_digits, report

    done = (directory / "findings.json").exists()
    findings = analyze_digits(directory, progress=not quiet)
    if done:
        typer.echo(f"Already done in {directory}; the run is as it was committed.\n")
    typer.echo(report(findings, directory))
