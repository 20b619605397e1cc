"""The page about a run: whose data it takes, what it has, what it says is missing."""

import base64
import json
import re

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

import ifa
from ifa.cli import main
from ifa.reports import report

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def network(trained):
    return trained(1).eval()


@pytest.fixture(scope="module")
def data():
    return Subset(ifa.nets.digits("held-out"), range(80))


@pytest.fixture(scope="module")
def run(network, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run"
    options = {"layer": ("conv2", "conv3"), "target_names": NAMES, "keep_samples": "full"}
    ifa.analyze(network, data, store=path, progress=False, **options)
    return path


@pytest.fixture(scope="module")
def page(run, data, network):
    return report(run, data, model=network, progress=False)


def content_of(page):
    text = re.search(r'id="content">(.*?)</script>', page.html, re.S)[1]
    return json.loads(text)


KINDS = {"u1": "u1", "i1": "i1", "i2": "<i2", "i4": "<i4", "f4": "<f4"}


def unpacked(packed):
    raw = np.frombuffer(base64.b64decode(packed["base64"]), KINDS[packed["kind"]])
    return raw.reshape(packed["shape"])


def plain(packed):
    unit = unpacked(packed["unit"])
    values = unpacked(packed["values"])
    return values * unit.reshape(*unit.shape, *[1] * (values.ndim - unit.ndim))


def test_the_page_holds_the_maps_of_its_samples_whole_and_by_feature(page, network, data):
    content = content_of(page)
    layer = content["layers"][1]
    rows = unpacked(content["samples"]["position"])[: content["shown"]]
    images = torch.stack([data[int(row)][0] for row in rows])
    target = torch.tensor(unpacked(content["samples"]["target"])[: content["shown"]])
    options = {"layer": "conv3", "rectify": False, "size": None}
    for method in layer["maps"]["methods"]:
        kernel = getattr(ifa.weight, method["name"])
        maps = ifa.explain(network, images, target.long(), weight=kernel, **options).numpy()
        assert np.abs(plain(method["maps"]) - maps).max() < 1e-4 * np.abs(maps).max()
        if method["name"] == "fullcam":
            parts = plain(layer["maps"]["parts"]["maps"])
            off = np.abs(parts.sum(1) - maps[: len(parts)]).max()
            assert off < 0.02 * np.abs(maps).max()


def test_importances_on_the_page_are_the_runs_with_intervals_around_them(page, run):
    statistics = ifa.open(run)["conv3"]
    layer = content_of(page)["layers"][1]
    importance = unpacked(layer["importance"])
    assert np.allclose(importance, statistics["importance"].values, rtol=1e-6, equal_nan=True)
    low, high = unpacked(layer["low"]), unpacked(layer["high"])
    known = np.isfinite(low)
    assert known.any()
    assert (low[known] <= importance[known]).all()
    assert (importance[known] <= high[known]).all()


def test_data_that_are_not_the_runs_are_refused(run, data, network):
    others = Subset(ifa.nets.digits("train"), range(80))
    with pytest.raises(
        ValueError, match=r"ifa\.report: expected the data of the run at .* got oth"
    ):
        report(run, others, progress=False)
    swapped = [*range(80)]
    swapped[1], swapped[2] = 2, 1  # not among the samples that identify data
    with pytest.raises(ValueError, match=r"ifa\.report: expected the data of the run, with the id"):
        report(run, Subset(data.dataset, swapped), progress=False)


def test_a_network_whose_maps_are_not_the_runs_is_refused(run, data, network):
    other = ifa.nets.digits_cnn().eval()
    with pytest.raises(ValueError, match=r"ifa\.report: expected the network and data of the run"):
        report(run, data, model=other, progress=False)
    options = {"score": ifa.score.probability, "progress": False}
    with pytest.raises(ValueError, match="made of, got another: score logit instead of probab"):
        report(run, data, model=network, **options)
    options = {"weight": ifa.weight.gradcam, "progress": False}
    with pytest.raises(ValueError, match="made of, got another: weighting fullcam instead of gra"):
        report(run, data, model=network, **options)


def test_what_is_missing_is_said(run, data, network):
    assert report(run).notes[0].startswith("No inputs and maps: the page was made without data")
    assert report(run, data, progress=False).notes[0].startswith("No maps: the page was made with")
    few = report(run, data, model=network, samples=10, progress=False)
    assert "10 of 80 samples are shown: see samples=." in few.notes
    poor = ifa.analyze(network, data, layer="conv3", keep_samples="none", progress=False)
    notes = report(poor).notes
    assert notes[0].startswith("No samples: the run kept none")
    assert any("no distribution, top samples, outliers or copies of conv3" in one for one in notes)
    with pytest.raises(ValueError, match="expected data= with model=, got none"):
        report(run, model=network)


def test_a_table_of_other_samples_is_refused_and_the_runs_is_shown(run, data, network):
    methods = ifa.contest.cam_methods(
        "conv3", weightings={"gradcam": ifa.weight.gradcam, "noise": ifa.contest.noise}
    )
    metrics = {"sparseness": ifa.contest.default_metrics()["sparseness"]}
    one = Subset(data, range(8))
    table = ifa.contest.table(network, one, methods, metrics, progress=False)
    said = content_of(report(run, table=table))["methods"]["said"]
    assert "beat noise" in said
    other = Subset(ifa.nets.digits("train"), range(8))
    table = ifa.contest.table(network, other, methods, metrics, progress=False)
    with pytest.raises(ValueError, match="expected a table of samples of the run, got 'digit-"):
        report(run, table=table)


def test_text_cannot_leave_its_place(run):
    bad = "</script><script>alert(1)</script><!-- content -->"
    html = report(run, title=bad).html
    assert html.count("<script") == 3
    assert html.count("</script>") == 3
    assert "alert(1)</script>" not in html


def test_nothing_but_the_page_is_allowed(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page.html)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r'(?:src|href)="(?!#)', page.html.split('id="content"')[0])


def test_a_notebook_shows_the_page_apart_from_itself(page):
    shown = page._repr_html_()
    assert shown.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
    assert 'sandbox="allow-scripts"' in shown


def test_notebooks_show_objects_as_tables_whose_texts_stay_texts(run, network, data):
    tree = ifa.open(run)
    scale = ifa.scale_from(tree["conv3"])
    assert "layer conv3, fullcam, in logit" in scale._repr_html_()
    assert f"<td>{float(scale.high):.4g}</td>" in scale._repr_html_()
    widest = ifa.scale_from(tree["conv3"], over="target")._repr_html_()
    assert widest.count("<tr>") == 11
    chain = ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine)
    assert "weigh(kernel=gradcam)" in chain._repr_html_()
    sites = ifa.trace(network, data[0][0][None])
    assert sites._repr_html_().count("<tr>") == 1 + len(sites)
    site = ifa.Site("<b>", (2, 3), torch.float32)
    assert "&lt;b&gt;</th><td>2 × 3</td><td>float32</td>" in site._repr_html_()
    assert tree._repr_html_().startswith("<div>")


@pytest.mark.parametrize("task", ["regression", "multilabel", "binary"])
def test_every_task_has_a_page(task, network, data):
    head = torch.nn.Linear(10, 1) if task == "binary" else torch.nn.Identity()
    model = torch.nn.Sequential(network, head).eval()
    labels = {
        "regression": lambda label: [float(label)] * 10,
        "multilabel": lambda label: [int(label == one) for one in range(10)],
        "binary": lambda label: int(label > 4),
    }
    items = [(image, labels[task](label), name) for image, label, name in Subset(data, range(30))]
    run = ifa.analyze(model, items, layer="0.conv3", task=task, keep_samples="full", progress=False)
    page = report(run, items, model=model, progress=False)
    content = content_of(page)
    assert content["shown"] == 30
    assert content["layers"][0]["maps"] is not None


def test_the_command_makes_the_page(run, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ifa.nets, "some_digits", lambda: data, raising=False)
    out = tmp_path / "page.html"
    line = ["report", str(run), "ifa.nets:some_digits", "--out", str(out), "--quiet"]
    assert main(line) == 0
    said = capsys.readouterr()
    assert f"report: {out}" in said.out
    assert "No maps: the page was made without the network" in said.err
    assert out.read_text().startswith("<!doctype html>")
