"""Sphinx: pages in Markdown, the reference from docstrings, notebooks executed here."""

import importlib
import inspect
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import jupytext
from sphinx.util.parallel import make_chunks

import ifa

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # of _mathml

project = "ifa"
author = "the founders of ifa"
copyright = "2026, the founders of ifa"
release = ifa.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "_mathml",
]
html_math_renderer = "mathml"
exclude_patterns = ["notebooks/*.ipynb", "tables", "_build", "jupyter_execute", ".jupyter_cache"]
html_theme = "furo"
html_title = "ifa"
html_static_path = ["_static"]
default_role = "code"

autodoc_typehints = "none"  # shapes are in the first column of the docstrings
napoleon_google_docstring = False
napoleon_use_rtype = False

# shapes stand where napoleon expects types, and their axes are no names to link to
suppress_warnings = ["ref.python"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

# Namespace -> what its page says first. Pages list every name in `__all__`: adding a method to the
# library adds it here.
NAMESPACES = {
    "ifa": "The public face: taps, stages, scales, the population.",
    "ifa.weight": "CAM weightings, pure functions of one example's activations and gradients.",
    "ifa.perturb": "Weightings that run the model again: masked, ablated, noisy, twice back.",
    "ifa.attribute": "Attributions to the input, and transforms over them.",
    "ifa.basis": "Other features than channels: concepts of several channels.",
    "ifa.dense": "The same network on a finer grid.",
    "ifa.refine": "A map made sharper, with the help of the image.",
    "ifa.select": "Selection rules, from importance to a mask.",
    "ifa.score": "The scalar being explained.",
    "ifa.baseline": "What stands for nothing there, in metrics and attributions.",
    "ifa.reduce": "Mergeable statistics.",
    "ifa.engines": "What does the shards of a population, where it is more than one process.",
    "ifa.diagnose": "What the statistics say: outliers, redundancy, shift, confounders.",
    "ifa.evaluate": "Is the map any good.",
    "ifa.contest": "Methods against metrics over a population.",
    "ifa.evidence": "What the literature claims, measured on one's own network.",
    "ifa.population": "The drivers over a population, and how sure its statistics are.",
    "ifa.interop": "Adapters for captum and Quantus.",
    "ifa.plot": "Pictures: axes in, axes out.",
    "ifa.reports": "One page about a run, which needs nothing else.",
    "ifa.data": "Data sets from folders, tables, volumes, arrays and other libraries.",
    "ifa.store": "Runs on disk, masks and maps as files, networks by reference.",
    "ifa.nets": "Networks and data that ship with the library.",
    "ifa.testing": "Laws, strategies, tiny networks and assertions.",
}


def told(value: object) -> str:
    """Return the first line of a docstring, for a table."""
    text = inspect.getdoc(value) if callable(value) else None
    line = (text or "").partition("\n")[0].replace("|", "\\|")
    return re.sub(r":math:`(.*?)`", r"$\1$", line)


def write_reference(folder: Path) -> None:
    """Write a page for each namespace: a table of its names, and what their docstrings say."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    targets: dict[int, str] = {}  # what stands on two pages has one target, that of the first
    for name, summary in NAMESPACES.items():
        module = importlib.import_module(name)
        members = {
            f"{name}.{member}": getattr(module, member)
            for member in sorted(module.__all__, key=str.lower)
            if not inspect.ismodule(getattr(module, member))
        }
        lines = [f"# {name}", "", summary, "", "| name | what it does |", "|---|---|"]
        lines += [
            f"| [`{path.rpartition('.')[2]}`](#{targets.get(id(value), path)}) | {told(value)} |"
            for path, value in members.items()
        ]
        for path, value in members.items():
            kind = "data"
            if callable(value):
                kind = "class" if isinstance(value, type) else "function"
            options = [":members:"] if kind == "class" else []
            options += [":no-index:"] if id(value) in targets else []
            targets.setdefault(id(value), path)
            lines += ["", "```{eval-rst}", f".. auto{kind}:: {path}"]
            lines += [f"   {option}" for option in options] + ["```"]
        (folder / f"{name}.md").write_text("\n".join([*lines, ""]))


def copy_notebooks(folder: Path) -> None:
    """Copy them; beside each lies what Jupyter opens, and its first lines say so."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(HERE.parent / "notebooks", folder)
    for page in sorted(folder.glob("*.md")):
        notebook = page.with_suffix(".ipynb")
        jupytext.write(jupytext.read(page), notebook)
        head, title, rest = page.read_text().partition("\n# ")
        heading, _, body = rest.partition("\n")
        link = f"{{download}}`Download this notebook <{notebook.name}>`"
        page.write_text(f"{head}{title}{heading}\n\n{link}\n{body}")


def start_kernels_with(script: Path) -> tempfile.TemporaryDirectory[str]:
    """Have every notebook of this build run a script first; its folder is gone after the build."""
    home = tempfile.TemporaryDirectory()
    startup = Path(home.name) / "profile_default" / "startup"
    startup.mkdir(parents=True)
    shutil.copy(script, startup)
    os.environ["IPYTHONDIR"] = home.name
    return home


def spread_notebooks(app, env, docnames: list[str]) -> None:
    """Give each process of `-j` its share of the notebooks: sorted by name, one would run all."""
    chunks = enumerate(make_chunks(docnames, app.parallel))
    places = [
        (number >= app.parallel, at, number) for number, some in chunks for at in range(len(some))
    ]
    ranks = sorted(range(len(places)), key=places.__getitem__)
    slow_first = sorted(docnames, key=lambda name: not name.startswith("notebooks/"))
    for rank, name in zip(ranks, slow_first, strict=True):
        docnames[rank] = name


def setup(app) -> None:
    """Connect what this file adds."""
    app.connect("env-before-read-docs", spread_notebooks)


write_reference(HERE / "reference" / "generated")
copy_notebooks(HERE / "notebooks")
_kernels = start_kernels_with(HERE / "_startup.py")
