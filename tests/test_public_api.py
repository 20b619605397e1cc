"""The public face: complete, documented, light to import, and the README's word kept."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch

import ifa

ROOT = Path(__file__).parent.parent
NAMESPACES = [
    "ifa",
    "ifa.attribute",
    "ifa.baseline",
    "ifa.basis",
    "ifa.contest",
    "ifa.data",
    "ifa.dense",
    "ifa.diagnose",
    "ifa.engines",
    "ifa.evaluate",
    "ifa.interop",
    "ifa.nets",
    "ifa.perturb",
    "ifa.plot",
    "ifa.population",
    "ifa.reduce",
    "ifa.refine",
    "ifa.score",
    "ifa.select",
    "ifa.store",
    "ifa.taps",
    "ifa.testing",
    "ifa.weight",
]


def public_functions():
    for name in NAMESPACES:
        module = importlib.import_module(name)
        for member in module.__all__:
            value = getattr(module, member)
            if inspect.isfunction(value) and value.__module__.startswith("ifa"):
                yield pytest.param(value, id=f"{name}.{member}")


@pytest.mark.parametrize("name", NAMESPACES)
def test_all_is_sorted_and_exists(name):
    module = importlib.import_module(name)
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, member) for member in module.__all__)


@pytest.mark.parametrize("function", list(public_functions()))
def test_public_functions_are_documented(function):
    text = inspect.getdoc(function)
    assert text
    assert len(text.splitlines()[0]) <= 100
    parameters = sorted(inspect.signature(function).parameters)
    section = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    named = re.findall(r"^([*\w][*\w, ]*?)(?: :.*)?$", section, re.M)
    assert sorted(name.strip(" *") for line in named for name in line.split(",")) == parameters


@pytest.mark.parametrize("function", list(public_functions()))
def test_options_are_keyword_only(function):
    """Data is positional; an option with a default is not, but for `target` and `params`."""
    positional = {
        "target",
        "targets",
        "how",
        "layer",
        "widen",
        "prefix",
        "grid",
        "weights",
        "split",
        "values",
        "y",
        "labels",
        "data",
        "out",
    }
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name not in positional:
            assert parameter.default is parameter.empty, parameter.name


HEAVY = (
    "matplotlib",
    "sklearn",
    "zarr",
    "typer",
    "xarray",
    "scipy",
    "pandas",
    "hypothesis",
    "rich",
)


def run_fresh(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )
    return result.stdout


def test_import_loads_nothing_heavy():
    loaded = run_fresh("import sys, ifa; print(' '.join(sys.modules))").split()
    assert not [name for name in HEAVY if name in loaded]


def test_nothing_needs_an_engine():
    """Dask, and what object stores need, may be missing: xarray imports what is there."""
    names = [name for name in ifa.__all__ if name != "testing"]
    run_fresh(
        "import sys\n"
        "for name in ('dask', 'distributed', 'cloudpickle', 'moto', 'obstore'):\n"
        "    sys.modules[name] = None\n"
        "import ifa, tempfile, torch\n"
        f"[getattr(ifa, name) for name in {names}]\n"
        "ifa.engines.dask\n"
        "net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3), torch.nn.Flatten()).eval()\n"
        "options = {'store': tempfile.mkdtemp(), 'layer': '0', 'progress': False}\n"
        "ifa.analyze(net, [(torch.ones(1, 4), 0)], **options)\n"
        "ifa.open(options['store'])"
    )


def test_everything_public_can_be_reached_after_a_light_import():
    names = [name for name in ifa.__all__ if name != "testing"]
    run_fresh(f"import ifa; [getattr(ifa, name) for name in {names}]; dir(ifa); ifa.__version__")
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ifa.nonsense  # noqa: B018


def test_a_chain_compiles_whole():
    # in a fresh process, because the import hook that checks shapes here cannot be compiled
    print(
        run_fresh(
            "import torch, ifa\n"
            "mask = torch.tensor([[True, False, True], [True, True, False]])\n"
            "scale = ifa.Scale(torch.tensor([-1., -2.]), torch.tensor([1., 3.]))\n"
            "explain = ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.keep(mask), ifa.combine,\n"
            "    ifa.relu, ifa.rescale(scale, 'tanh'), ifa.resize((7, 5)), ifa.clip(0, 1))\n"
            "f = ifa.Features(torch.randn(4, 3, 5, 4), torch.randn(4, 3, 5, 4),\n"
            "    torch.tensor([0, 1, 1, 0]))\n"
            "step = ifa.batched(explain)\n"
            "compiled = torch.compile(step, fullgraph=True, backend='eager')\n"
            "torch.testing.assert_close(compiled(f).values, step(f).values)\n"
        )
    )


def test_a_planted_wrong_shape_is_caught():
    """The jaxtyping hook is on for `ifa.weight`: an annotation that lies is an error here."""
    with pytest.raises(Exception, match=r"activations|gradients") as caught:
        ifa.weight.gradcam(torch.ones(2, 3, 4), torch.ones(3, 3, 4))
    assert "TypeCheckError" in type(caught.value).__name__


def test_the_example_of_the_readme_ends_in_a_picture(trained, monkeypatch, tmp_path):
    network = trained()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ifa.nets, "train_digits", lambda: network)
    text = (ROOT / "README.md").read_text()
    code = re.search(r"<!-- example -->\n```python\n(.*?)```", text, re.S).group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 16
    names: dict[str, object] = {}
    exec(code.replace('layer="conv3")', 'layer="conv3", progress=False)', 1), names)
    maps = names["maps"]
    assert maps.shape == (8, 8, 8)
    assert maps.isfinite().all()
    assert (tmp_path / "maps.png").stat().st_size > 10_000


def test_every_room_is_on_a_floor_in_the_contract_and_in_the_docs():
    rooms = {path.stem for path in (ROOT / "ifa").glob("[!_]*") if path.suffix in ("", ".py")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    floors = project["tool"]["importlinter"]["contracts"][0]["layers"]
    held = [re.findall(r"ifa\.(\w+)", floor) for floor in floors]
    assert {room for floor in held for room in floor} == rooms - {"testing"}
    house = (ROOT / "docs" / "concepts.md").read_text().partition("## The house")[2]
    drawn = [re.findall(r"`(\w+)`", line) for line in re.findall(r"^\|.*`.*$", house, re.M)]
    assert [sorted(floor) for floor in drawn] == [sorted(floor) for floor in held[::-1]]


def imported(path):
    """List the packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = {re.split(r"[<>=\[]", line)[0] for line in project["dependencies"]}
    # what is asked for by name where it is used, and tools of tests
    optional = {
        re.split(r"[<>=\[]", line)[0]
        for name in ("io", "dask", "s3", "test")
        for line in extras[name]
    }
    distributions = packages_distributions()
    for path in (ROOT / "ifa").rglob("*.py"):
        given = needed | optional if {path.parent.name, path.stem} & {*OPTIONAL} else needed
        for package in {*imported(path)} - {"ifa", *sys.stdlib_module_names}:
            assert given & {name.lower() for name in distributions[package]}, (path, package)


# rooms that import what an extra installs
OPTIONAL = ("data", "engines", "nets", "store", "testing")

PAGES = [
    "README.md",
    *sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("docs", "docs/start", "docs/how-to", "docs/reference", "notebooks")
        for path in (ROOT / folder).glob("*.md")
    ),
]


@pytest.mark.parametrize("path", PAGES)
def test_links_between_pages_lead_somewhere(path):
    # the docs get their copy of the notebooks when they are built
    built = ROOT / ("docs" if path.startswith("notebooks") else "") / path
    prose = re.sub(r"^```.*?^```$", "", (ROOT / path).read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", prose):
        place = (built.parent / target).resolve().relative_to(ROOT).as_posix()
        assert (ROOT / place.replace("docs/notebooks/", "notebooks/")).exists(), target
