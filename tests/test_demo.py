"""The demo: the main job on real data, continued and never destroyed."""

import json

import pytest
import torch

import ifa
from ifa.demo import analyze_digits, report


@pytest.fixture(scope="module")
def demo(tmp_path_factory, trained):
    home = tmp_path_factory.mktemp("demo") / "run"
    network = trained()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ifa.nets, "train_digits", lambda **options: network)
        return home, analyze_digits(home, progress=False)


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_network_is_good_and_the_population_is_the_held_out_half(demo):
    _, findings = demo
    assert findings["accuracy"] >= 0.97
    assert findings["samples"] == 899
    assert sum(findings["accepted"]) == round(findings["accuracy"] * 899)


def test_level_follows_the_logit_on_the_common_scale_only(demo):
    _, findings = demo
    common, single = (findings["consistency"][kind] for kind in ("common scale", "one by one"))
    assert min(r for r, *_ in common) > 0.9999
    assert max(r for r, *_ in single) < 0.5
    assert all(low <= r <= high for r, low, high in common + single)


def test_it_ends_with_a_page_whose_path_it_says(demo):
    home, findings = demo
    page = home / "report.html"
    assert report(findings, home).splitlines()[-1].startswith(f"report: {page} ")
    assert page.stat().st_size < 3e6
    assert page.read_text().startswith("<!doctype html>")


def test_the_run_is_committed_and_says_where_it_is_from(demo):
    home, findings = demo
    ifa.verify(home / "run")
    tree = ifa.open(home / "run")
    spec = json.loads(tree.attrs["spec"])
    assert spec["layers"] == ["conv3"]
    assert float(ifa.scale_from(tree).high) == findings["scale"]["high"]
    assert tree["samples"]["id"].values[0].startswith("digit-")


def test_each_table_of_kept_channels_has_intervals_around_its_values(demo):
    _, findings = demo
    assert {fill: len(rules) for fill, rules in findings["kept"].items()} == {"zero": 4, "mean": 4}
    for rows in (rows for rules in findings["kept"].values() for rows in rules.values()):
        assert list(rows) == ["0.05", "0.1", "0.25", "0.5"]
        assert all(low <= value <= high for value, low, high in rows.values())


def test_masked_accuracy_is_what_the_network_says_without_those_channels(demo):
    """Own channels at 25 %, by hand: each logit from its own channels, bias included."""
    home, findings = demo
    net = ifa.ModelRef("ifa.nets:digits_cnn", weights=str(home / "weights.safetensors")).load()
    data = ifa.nets.digits("held-out")
    images = torch.stack([image for image, _, _ in data])
    labels = torch.tensor([label for _, label, _ in data])
    mask = ifa.select.largest_absolute(ifa.difference(ifa.open(home / "run")), ratio=0.25)
    with torch.no_grad():
        pooled = net.conv3(net.conv2(net.conv1(images))).mean((2, 3))
        logits = pooled @ (net.head.weight * torch.tensor(mask.values)).T + net.head.bias
    accuracy = (logits.argmax(1) == labels).double().mean()
    assert findings["kept"]["zero"]["own, difference"]["0.25"][0] == pytest.approx(float(accuracy))


def test_pictures_are_there(demo):
    home, _ = demo
    names = {"overlays", "kept-channels", "importance", "extremes", "accuracy", "level"}
    assert {path.stem for path in (home / "pictures").glob("*.png")} == names


def test_running_again_changes_nothing(demo):
    home, findings = demo
    before = contents(home)
    assert analyze_digits(home, progress=False) == json.loads(json.dumps(findings))
    assert contents(home) == before
    assert report(findings, home).count("25%") == 3


def test_a_directory_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(ValueError, match=r"holds something else. Nothing was touched"):
        analyze_digits(tmp_path, progress=False)
    assert contents(tmp_path) == {
        (tmp_path / "thesis.txt").relative_to(tmp_path): b"do not lose me"
    }


def test_a_directory_of_another_demo_is_refused(tmp_path):
    (tmp_path / "demo.json").write_text('{"demo": "another"}')
    with pytest.raises(ValueError, match=r"expected .* to be of this demo"):
        analyze_digits(tmp_path, progress=False)
