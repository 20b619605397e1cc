"""Second moments against numpy, and analyses in a basis: what changes, and what does not."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch

import ifa
from ifa.testing import assert_trees_close, models

LAYER = "conv2"  # of 5 channels
QUIET = {"progress": False}


class Killed(Exception):
    """Stands for a signal."""


def population(samples=11, space=2):
    net = models.pooled_linear(space)
    inputs = models.inputs(net, samples)
    labels = net(inputs).argmax(1)
    return net, [(one, int(label)) for one, label in zip(inputs, labels, strict=True)]


def run(net, data, **options):
    return ifa.analyze(
        net, data, **{"layer": LAYER, "batch_size": 3, "shard": 4, **QUIET, **options}
    )


def moments(net, data, **options):
    return run(net, data, reductions="second_moments", **options)[LAYER].to_dataset()


def rows(values):
    return np.moveaxis(values.double().numpy(), -3, -1).reshape(-1, values.shape[-3])


def seen_by_a_tap(net, data, target):
    return ifa.tap(net, LAYER, torch.stack([one for one, _ in data]))(
        torch.stack([one for one, _ in data]), target
    )


def dictionary(net, data, kind="pca", **options):
    statistics = moments(net, data, targets=[0, 1, 2, 3])
    return getattr(ifa.basis, kind)(statistics, **options)


NAMES = ("activation_mean", "activation_covariance", "gradient_mean", "gradient_moment")


@pytest.mark.parametrize("listed", [True, False])
def test_second_moments_are_those_of_numpy(listed):
    net, data = population()
    target = torch.arange(3)[:, None].expand(-1, len(data)) if listed else None
    features = seen_by_a_tap(net, data, target)
    found = moments(net, data, targets=[0, 1, 2] if listed else "predicted")
    a, g = features.activations, features.gradients.double()
    g = rows(g - g.mean(0) if listed else g)
    expected = rows(a).mean(0), np.cov(rows(a).T, bias=True), g.mean(0), np.cov(g.T, bias=True)
    for name, value in zip(NAMES, expected, strict=True):
        nothing = 1e-7 * np.abs(g).max() if name == "gradient_mean" else 0
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=nothing)


def test_gradients_of_one_output_are_taken_about_zero():
    net, data = population()
    found = moments(net, data, targets=[1])
    g = rows(seen_by_a_tap(net, data, 1).gradients)
    np.testing.assert_allclose(found["gradient_moment"], g.T @ g / len(g), rtol=1e-5, atol=1e-12)


def test_second_moments_of_a_run_that_was_killed_have_the_same_bits(tmp_path):
    net, data = population()

    def killing(done, total):
        if done >= 6:
            raise Killed

    options = {"targets": [0, 1, 2], "subsample_positions": 7}
    with pytest.raises(Killed):
        moments(net, data, store=tmp_path / "run", progress=killing, **options)
    resumed = moments(net, data, store=tmp_path / "run", **options)
    whole = moments(net, data, **options)
    for name in NAMES:
        np.testing.assert_array_equal(resumed[name], whole[name])


def test_second_moments_of_merged_runs_are_those_of_all(tmp_path):
    net, data = population()
    for name, part in {"a": data[:5], "b": data[5:]}.items():
        moments(net, part, store=tmp_path / name)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b")[LAYER]
    whole = moments(net, data)
    for name in NAMES:
        np.testing.assert_allclose(merged[name], whole[name], rtol=1e-5, atol=1e-12)


def test_some_positions_are_drawn_and_said_in_the_spec():
    net, data = population()
    all_of_them = moments(net, data)
    found, again = (moments(net, data, subsample_positions=9) for _ in range(2))
    assert_trees_close(
        found["gradient_moment"].values, again["gradient_moment"].values, rtol=0, atol=0
    )
    assert (found["activation_mean"] != all_of_them["activation_mean"]).all()
    spread = np.sqrt(np.diag(all_of_them["activation_covariance"]))
    assert (abs(found["activation_mean"] - all_of_them["activation_mean"]) < spread / 2).all()
    tree = run(net, data, reductions="second_moments", subsample_positions=9)
    assert json.loads(tree.attrs["spec"])["subsample_positions"] == 9
    more = moments(net, data, subsample_positions=10**6)
    for name in NAMES:
        np.testing.assert_array_equal(more[name], all_of_them[name])


def test_samples_that_are_not_finite_are_left_out():
    net, data = population()
    broken = [*data, (torch.full_like(data[0][0], torch.nan), 0)]
    found, whole = (moments(net, one, batch_size=16, shard=16) for one in (broken, data))
    for name in NAMES:
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-5, atol=1e-12)


def test_a_weighting_without_gradients_has_no_second_moments():
    net, data = population()
    for weight in (ifa.weight.eigencam, partial(ifa.perturb.scorecam, chunk=8)):
        with pytest.raises(ValueError, match="reads gradients"):
            moments(net, data, weight=weight)


def test_fits_need_their_moments():
    net, data = population()
    with pytest.raises(ValueError, match="second_moments"):
        ifa.basis.pca(run(net, data)[LAYER].to_dataset())
    with pytest.raises(ValueError, match="atoms"):
        dictionary(net, data, atoms=6)


@pytest.mark.parametrize("kind", ["pca", "gradient", "rotation", "identity"])
def test_orthonormal_fits_are_orthonormal(kind):
    net, data = population()
    atoms = dictionary(net, data, kind).atoms
    torch.testing.assert_close(atoms @ atoms.T, torch.eye(5, dtype=torch.float64))


def test_a_balanced_basis_balances():
    net, data = population()
    statistics = moments(net, data, targets=[0, 1, 2, 3])
    found = ifa.basis.balanced(statistics)
    p, q = (torch.tensor(statistics[name].values) for name in NAMES[1::2])
    torch.testing.assert_close(found.encode @ found.atoms.T, torch.eye(5, dtype=torch.float64))
    strength = (found.encode @ p @ found.encode.T).diagonal()
    both = torch.linalg.eigvals(p @ q).real.sort(descending=True).values.clamp(min=0).sqrt()
    torch.testing.assert_close(strength[:3], both[:3], rtol=1e-4, atol=0)
    torch.testing.assert_close((found.atoms @ q @ found.atoms.T).diagonal()[:3], strength[:3])
    assert (strength.diff() <= 0).all()
    few = ifa.basis.balanced(statistics, atoms=2)
    torch.testing.assert_close(few.atoms, found.atoms[:2])


@pytest.mark.parametrize("weight", ["fullcam", "gradcam"])
@pytest.mark.parametrize(("kind", "atoms"), [("balanced", 5), ("rotation", 5), ("pca", 2)])
def test_a_basis_changes_no_map_and_says_what_it_does_not_hold(kind, atoms, weight):
    net, data = population()
    found = dictionary(net, data, kind, atoms=atoms)
    options = {"weight": getattr(ifa.weight, weight), "keep_samples": "full"}
    plain, turned = run(net, data, **options), run(net, data, basis=found, **options)
    rows = [tree[f"samples/{LAYER}"] for tree in (plain, turned)]
    whole, held = (row["importance"].values.sum(1) for row in rows)
    scale = np.abs(rows[0]["importance"].values).sum(1).max()
    np.testing.assert_allclose(held + rows[1]["residual"], whole, rtol=0, atol=1e-6 * scale)
    statistics = turned[LAYER]
    right = plain[LAYER]["count"].values > 0
    mean = statistics["importance"].sum("atom") + statistics["residual"]
    expected = plain[LAYER]["importance"].sum("channel")
    np.testing.assert_allclose(mean[right], expected[right], rtol=0, atol=1e-6 * scale)
    share = statistics["importance"].sum("atom") / expected
    np.testing.assert_allclose(statistics["explained"][right], share[right], rtol=1e-4)
    if atoms == 5:
        for name in ("map_max", "map_min"):
            high = np.abs(rows[0]["map_max"].values).max()
            np.testing.assert_allclose(rows[1][name], rows[0][name], rtol=0, atol=1e-6 * high)
        np.testing.assert_allclose(statistics["explained"][right], 1, rtol=1e-5)


def test_the_identity_gives_the_bits_of_the_channels():
    net, data = population()
    found = dictionary(net, data, "identity")
    options = {"keep_samples": "full", "reductions": ("covariance", "histogram")}
    plain, turned = run(net, data, **options), run(net, data, basis=found, **options)
    same = turned[LAYER].to_dataset().rename(atom="channel", atom_="channel_")
    for name, values in plain[LAYER].to_dataset().data_vars.items():
        np.testing.assert_array_equal(same[name], values)
    for name, values in plain[f"samples/{LAYER}"].to_dataset().data_vars.items():
        np.testing.assert_array_equal(turned[f"samples/{LAYER}"][name], values)
    assert not turned[f"samples/{LAYER}"]["residual"].any()


OPTIONS = {
    "full": {"keep_samples": "full"},
    "none": {"keep_samples": "none"},
    "listed": {"targets": [2, 0], "keep_samples": "full"},
    "label": {"targets": "label"},
    "groups": {"groups": list("aabbabababa"), "keep_samples": "full"},
    "mean": {"reduction": "mean"},
    "weighted": {"probability_weighted": True},
    "reductions": {"reductions": ("histogram", "top_samples", "covariance", "cooccurrence")},
    "moments": {"reductions": "second_moments", "subsample_positions": 5},
    "own": {
        "reductions": {"mine": ifa.reduce.mapped(lambda b: b.importance, ifa.reduce.moments())}
    },
    "many": {"layer": ["conv1", LAYER]},
}


@pytest.mark.parametrize("atoms", [2, 8])
@pytest.mark.parametrize("name", OPTIONS)
def test_any_number_of_atoms_works_with_every_option(name, atoms, tmp_path):
    net, data = population()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, atoms, 5, generator=generator)
    basis = found = ifa.basis.Dictionary(*noise, torch.zeros(5))
    if name == "many":
        first = ifa.basis.Dictionary(*noise[:, :, :3], torch.zeros(3))
        basis = {"conv1": first, LAYER: found}
    options = {**OPTIONS[name], "basis": basis}
    kept, tree = run(net, data, store=tmp_path / "run", **options), run(net, data, **options)
    assert dict(tree[LAYER].sizes)["atom"] == atoms
    assert "channel" not in tree[LAYER].dims
    for layer in tree.attrs["layers"]:
        for key, values in tree[layer].to_dataset().data_vars.items():
            np.testing.assert_array_equal(kept[layer][key], values)
    opened = ifa.open(tmp_path / "run")
    spec = json.loads(opened.attrs["spec"])["basis"]
    assert (spec[LAYER] if name == "many" else spec) == ifa.basis.digest(found)
    other = found._replace(mean=torch.ones(5))
    options["basis"] = {**basis, LAYER: other} if name == "many" else other
    with pytest.raises(ValueError, match="basis"):
        run(net, data, store=tmp_path / "run", **options)


def test_a_chain_of_ones_own_may_have_other_features(tmp_path):
    net, data = population()
    step = ifa.chain(ifa.project(dictionary(net, data, atoms=2)), ifa.weigh(ifa.weight.fullcam))
    tree = run(net, data, weight=step, keep_samples="full", store=tmp_path / "run")
    assert tree[LAYER].sizes["channel"] == 2
    with pytest.raises(ValueError, match="basis="):
        moments(net, data, weight=step)


def test_what_reads_a_run_reads_one_in_a_basis(tmp_path):
    net, data = population(24)
    data = [(one, n % 2) for n, (one, _) in enumerate(data)]
    found = dictionary(net, data, "balanced", atoms=3)
    options = {"basis": found, "keep_samples": "full", "targets": [0, 1]}
    tree = run(net, data, store=tmp_path / "all", **options)
    for name, part in {"a": data[:12], "b": data[12:]}.items():
        run(net, part, store=tmp_path / name, **options)
    merged = ifa.merge(tmp_path / "a", tmp_path / "b")
    for name in ("importance", "residual", "explained"):
        np.testing.assert_allclose(merged[LAYER][name], tree[LAYER][name], rtol=1e-4, atol=1e-9)
    assert "atom" in ifa.compare(tmp_path / "a", tmp_path / "b")[LAYER].dims
    assert ifa.difference(tree).dims == ("target", "atom")
    mask = ifa.select.largest(tree[LAYER]["importance_overall"], ratio=0.4)
    assert mask.dims == ("target", "atom")
    shown = ifa.maps(
        net, data, layer=LAYER, basis=found, mask=mask, scale=tree, targets=[0, 1], **QUIET
    )
    inputs = torch.stack([one for one, _ in data])
    maps = ifa.explain(net, inputs, 1, layer=LAYER, basis=found, mask=mask, scale=tree)
    np.testing.assert_allclose(shown[LAYER]["map"].sel(target=1), maps, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="scale of these very maps"):
        ifa.explain(net, inputs, 1, layer=LAYER, scale=tree)
    assert ifa.population.bootstrap(tree, draws=5).low.sizes["atom"] == 3
    ifa.population.stability(tree, ifa.select.strongest, draws=5)
    ifa.diagnose.redundancy(tree)
    ifa.diagnose.agreement(ifa.open(tmp_path / "a"), ifa.open(tmp_path / "b"))


UNLIKE = sorted({*ifa.weight.__all__} - {"cam", "fullcam", "gradcam", "hirescam"})


@pytest.mark.parametrize("name", ifa.weight.__all__)
def test_a_weighting_that_depends_on_the_basis_is_named_once(name):
    net, data = population()
    basis = dictionary(net, data, "rotation")
    weight = getattr(ifa.weight, name)
    if name == "cam":
        with pytest.raises(TypeError, match="kernel"):
            run(net, data, weight=weight, basis=basis)
        return
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ifa.BasisDependent)
        plain, turned = (
            run(net, data, weight=weight),
            run(net, data, weight=weight, basis=basis),
        )
        by_hand = ifa.chain(ifa.project(basis), ifa.weigh(weight))
        inputs = torch.stack([one for one, _ in data])
        ifa.explain(net, inputs, layer=LAYER, weight=by_hand)
    named = [one for one in said if issubclass(one.category, ifa.BasisDependent)]
    assert len(named) == 2 * (name in UNLIKE)
    assert all(name in str(one.message) for one in named)
    maps = (tree[f"samples/{LAYER}"]["map_max"].values for tree in (plain, turned))
    a, b = maps
    assert np.allclose(a, b, rtol=1e-5, atol=1e-6 * np.abs(a).max()) == (name not in UNLIKE)


def test_what_is_no_dictionary_of_the_layer_is_refused():
    net, data = population()
    found = dictionary(net, data)
    for basis, named in (
        (found._replace(atoms=found.atoms[:, :4]), "encode"),
        (found._replace(mean=found.mean * torch.nan), "finite"),
        (found._replace(active=torch.tensor(9)), "active"),
        ({"conv1": found}, "conv2"),
        (ifa.basis.Dictionary(torch.eye(4), torch.eye(4), torch.zeros(4)), "5 channels"),
    ):
        with pytest.raises(ValueError, match=named):
            run(net, data, basis=basis)
    with pytest.raises(TypeError, match="Dictionary"):
        run(net, data, basis=torch.eye(5))
    with pytest.raises(TypeError, match="weighs nothing"):
        ifa.explain(net, torch.stack([data[0][0]]), layer=LAYER, weight=ifa.project(found))
