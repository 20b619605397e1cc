"""Second moments against numpy, and analyses in a basis: what changes, and what does not."""

import json
import warnings
from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr

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


def test_values_of_atoms_are_not_taken_for_channels():
    net, data = population()
    basis = dictionary(net, data, "rotation")
    plain, turned = run(net, data), run(net, data, basis=basis)
    inputs = torch.stack([one for one, _ in data])
    other = dictionary(net, data, "pca")
    for tree, given, came in (
        (turned, None, "atoms"),
        (plain, basis, "channels"),
        (turned, other, "another basis"),
    ):
        with pytest.raises(ValueError, match=rf"principal_features: expected .* got .*{came}"):
            ifa.diagnose.principal_features(net, LAYER, data, tree, basis=given)
        if given is other:
            continue  # values do not say which basis they are of
        values = tree[LAYER]["importance_overall"]
        values = values.isel(target=0) if "target" in values.dims else values
        mask = ifa.select.largest(values, ratio=0.4)
        for call in (
            partial(ifa.evaluate.feature_curve, net, LAYER, inputs, values),
            partial(ifa.evaluate.feature_perturbation, net, LAYER, inputs, mask),
            partial(ifa.explain, net, inputs, 0, layer=LAYER, mask=mask),
            partial(ifa.maps, net, data, layer=LAYER, mask=mask, **QUIET),
            partial(ifa.evaluate.map_similarity, net, LAYER, inputs, mask),
        ):
            with pytest.raises(ValueError, match=rf"{call.func.__name__}: expected .*{came}"):
                call(**({} if given is None else {"basis": given}))


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


def activations(samples=40, channels=6, parts=3, seed=0):
    """Non-negative activations (sample, channel, y, x) of a few parts, and the parts."""
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.rand(parts, channels, generator=generator).square()
    codes = torch.rand(samples, parts, 3, 4, generator=generator)
    codes = codes * (torch.rand(codes.shape, generator=generator) < 0.5)
    return torch.einsum("nkyx,kc->ncyx", codes, atoms), atoms


def of_rows(found, values):
    """Return codes (row, atom) and what they make, (row, channel)."""
    rows = values.movedim(1, 0).flatten(1).double()
    codes = ifa.basis.encode(found, rows)
    return codes.T, ifa.basis.decode(found, codes).T, rows.T


@pytest.mark.parametrize("kind", ["nmf", "MiniBatchNMF", "FastICA", "PCA", "DictionaryLearning"])
def test_fits_find_planted_parts_and_say_their_error_on_held_out_samples(kind):
    from sklearn import decomposition

    values, _ = activations()
    if kind == "nmf":
        found = ifa.basis.nmf(values, atoms=3, seed=1)
    else:
        options = {"whiten": "unit-variance"} if kind == "FastICA" else {}
        if kind == "DictionaryLearning":
            options |= {"max_iter": 20, "transform_algorithm": "lasso_cd"}
        model = getattr(decomposition, kind)(3, random_state=0, **options)
        found = ifa.basis.from_sklearn(model, values, seed=1)
        assert not hasattr(model, "components_")
    assert 0 <= float(found.unexplained) < (0.1 if "NMF" in kind or kind == "nmf" else 1e-3)
    codes, made, rows = of_rows(found, values)
    left = (rows - made).square().sum() / (rows - rows.mean(0)).square().sum()
    torch.testing.assert_close(ifa.basis.unexplained(found, values), left)
    if kind in ("nmf", "MiniBatchNMF"):
        assert (codes >= 0).all()
        assert (found.atoms >= 0).all()
    again = ifa.basis.nmf(values, atoms=3, seed=1) if kind == "nmf" else found
    torch.testing.assert_close(again.atoms, found.atoms, rtol=0, atol=0)


def test_an_estimator_that_is_fitted_is_taken_as_it_is():
    from sklearn.decomposition import PCA, FastICA

    values, _ = activations()
    rows = values.movedim(1, -1).reshape(-1, 6).double()
    for model in (PCA(4).fit(rows.numpy()), FastICA(3, random_state=0).fit(rows.numpy())):
        found = ifa.basis.from_sklearn(model, values)
        codes, made, _ = of_rows(found, values)
        centred = codes - codes.mean(0)
        theirs = torch.from_numpy(model.transform(rows.numpy()))
        torch.testing.assert_close(centred, theirs - theirs.mean(0), rtol=1e-5, atol=1e-6)
        back = torch.from_numpy(model.inverse_transform(model.transform(rows.numpy())))
        expected = back if isinstance(model, PCA) else made
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=2e-2)


def test_a_sparse_autoencoder_is_sparse_and_finds_what_was_planted():
    generator = torch.Generator().manual_seed(3)
    parts = torch.nn.functional.normalize(torch.randn(6, 8, generator=generator), dim=1)
    which = torch.randint(6, (60, 16), generator=generator)
    size = 1 + torch.rand(60, 16, 1, generator=generator)
    values = (parts[which] * size).movedim(-1, 1)
    before = torch.get_rng_state()
    found = ifa.basis.sparse_autoencoder(values, atoms=12, active=2, epochs=60, rate=0.02)
    assert torch.equal(torch.get_rng_state(), before)
    assert float(found.unexplained) < 0.1
    codes, made, _ = of_rows(found, values)
    assert ((codes != 0).sum(1) <= 2).all()
    assert (codes >= 0).all()
    nothing = ifa.basis.decode(found, ifa.basis.fill(found))
    torch.testing.assert_close(nothing, found.mean)
    assert made.shape == (960, 8)


class Autoencoder:
    """What a sparse autoencoder of the library overcomplete offers."""

    def __init__(self, channels=6, atoms=9, top_k=2, bend=False):
        generator = torch.Generator().manual_seed(0)
        self.weight, self.atoms = torch.randn(2, atoms, channels, generator=generator)
        self.bias, self.top_k, self.bend = torch.randn(atoms, generator=generator), top_k, bend

    def get_dictionary(self):
        return self.atoms

    def encode(self, rows):
        before = rows @ self.weight.T + self.bias
        before = before.tanh() if self.bend else before
        codes = before.relu()
        top = codes.topk(self.top_k, 1)
        return before, torch.zeros_like(codes).scatter(1, top.indices, top.values)


def test_an_autoencoder_of_another_library_is_taken_for_what_it_computes():
    values, _ = activations()
    model = Autoencoder()
    found = ifa.basis.from_overcomplete(model, values)
    codes, _, rows = of_rows(found, values)
    torch.testing.assert_close(codes.float(), model.encode(rows.float())[1], rtol=1e-3, atol=1e-4)
    assert found.unexplained.isfinite()
    with pytest.raises(ValueError, match="affine"):
        ifa.basis.from_overcomplete(Autoencoder(bend=True), values)
    with pytest.raises(TypeError, match="get_dictionary"):
        ifa.basis.from_overcomplete(torch.nn.Linear(2, 2), values)
    model.encode = lambda rows: rows @ torch.linalg.pinv(model.atoms)
    model.atoms = model.atoms[:4]
    found = ifa.basis.from_overcomplete(model, values)
    assert found.atoms.shape == (4, 6)


def test_fits_refuse_what_they_cannot_read():
    values, _ = activations()
    with pytest.raises(ValueError, match="not negative"):
        ifa.basis.nmf(values - 1, atoms=2)
    with pytest.raises(ValueError, match="finite"):
        ifa.basis.nmf(values * torch.nan, atoms=2)
    with pytest.raises(ValueError, match="held_out"):
        ifa.basis.nmf(values, atoms=2, held_out=1.0)
    with pytest.raises(ValueError, match="at most 4 atoms"):
        ifa.basis.sparse_autoencoder(values, atoms=4, active=5)
    with pytest.raises(TypeError, match="components_"):
        ifa.basis.from_sklearn(object(), values)


@pytest.mark.parametrize("kind", ["pca", "gradient", "balanced", "rotation", "identity"])
def test_every_fit_of_moments_can_be_stored(kind, tmp_path):
    net, data = population()
    found = dictionary(net, data, kind)
    ifa.basis.save(found, tmp_path / "basis.safetensors")
    assert_trees_close(ifa.basis.load(tmp_path / "basis.safetensors"), found, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["basis.safetensors", "basis.zarr"])
def test_a_dictionary_survives_the_disk(name, tmp_path):
    values, _ = activations()
    found = ifa.basis.sparse_autoencoder(values, atoms=9, active=2, epochs=2)
    ifa.basis.save(found, tmp_path / name)
    assert_trees_close(ifa.basis.load(tmp_path / name), found, rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(FileExistsError):
        ifa.basis.save(found, tmp_path / name)
    with pytest.raises(ValueError, match=r"\.safetensors or \.zarr"):
        ifa.basis.save(found, tmp_path / "basis.pt")
    with pytest.raises(ValueError, match=r"that ifa\.basis\.save wrote"):
        ifa.basis.load(tmp_path / f"no{name}")


SOURCE = """
import ifa, torch
def net():
    torch.manual_seed(0)
    return ifa.nets.digits_cnn().eval()
def data():
    model, images = net(), ifa.nets.digits("held-out")[:40]
    return [(one, int(model(one[None]).argmax()), str(n)) for n, (one, *_) in enumerate(images)]
"""


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """Runs of one network: of channels, and in a basis of 5 atoms, of which one is another."""
    from ifa.cli import main

    home = tmp_path_factory.mktemp("typed")
    (home / "mine.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        words = ["mine.py:net", "mine.py:data", "--layer", "conv3", "--quiet", "--targets", "0,1,2"]
        assert main(["analyze", *words, "--out", "run", "--reductions", "second_moments"]) == 0
        for name, fit in {"five": "balanced", "other": "rotation"}.items():
            out = f"{name}.safetensors"
            assert main(["basis", "run", "--atoms", "5", "--fit", fit, "--out", out]) == 0
        full = ["--keep-samples", "full", "--basis", "five.safetensors"]
        assert main(["analyze", *words, "--out", "turned", *full]) == 0
        np.save("digit.npy", np.asarray(ifa.nets.digits("held-out")[0][0]))
    return home


COMMANDS = {
    "maps": ["maps", "turned", "mine.py:net", "mine.py:data", "--form", "zarr", "--quiet"],
    "evaluate": ["evaluate", "turned", "mine.py:net", "mine.py:data", "--quiet", "--samples", "4"],
    "diagnose": ["diagnose", "turned", "mine.py:net", "mine.py:data"],
    "explain": ["explain", "mine.py:net", "digit.npy", "--run", "turned"],
}


def test_the_commands_fit_a_basis_and_analyze_in_it(typed, monkeypatch, capsys):
    from ifa.cli import main

    monkeypatch.chdir(typed)
    words = ["basis", "run", "--atoms", "5", "--out"]
    assert main([*words, "again.safetensors"]) == 0
    assert "balanced of conv3: 5 atoms of 64 channels" in capsys.readouterr().out
    again, five = (ifa.basis.load(f"{name}.safetensors") for name in ("again", "five"))
    assert ifa.basis.digest(again) == ifa.basis.digest(five)
    assert ifa.open("turned")["conv3"].sizes["atom"] == 5
    words = ["mine.py:net", "mine.py:data", "--layer", "conv3", "--quiet", "--limit", "4"]
    assert main(["analyze", *words, "--out", "named", "--basis", "conv3=five.safetensors"]) == 0
    assert ifa.open("named")["conv3"].sizes["atom"] == 5
    assert main(["basis", "turned", "--out", "six.safetensors"]) == 1
    assert "second_moments" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_on_a_run_in_a_basis_asks_for_that_basis(name, typed, monkeypatch, capsys):
    from ifa.cli import main

    monkeypatch.chdir(typed)
    words = [*COMMANDS[name]] + (["--out", "shown"] if name == "explain" else [])
    five, other = (ifa.basis.digest(ifa.basis.load(f"{one}.safetensors"))[:12]
                   for one in ("five", "other"))  # fmt: skip
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "expected --basis with the dictionary that the run at turned was made in" in said
    assert f"at layer conv3, {five}, got none" in said
    assert main([*words, "--basis", "other.safetensors"]) == 1
    assert f"{five}, got other.safetensors ({other})" in capsys.readouterr().err
    plain = ["run" if word == "turned" else word for word in words]
    assert main([*plain, "--basis", "five.safetensors"]) == 1
    assert f"got five.safetensors ({five}), which it was not" in capsys.readouterr().err


def test_maps_of_a_run_in_a_basis_are_those_of_its_atoms(typed, monkeypatch, capsys):
    from ifa.cli import main

    monkeypatch.chdir(typed)
    options = ["--basis", "five.safetensors", "--beside", "run", "--mask", "largest"]
    assert main([*COMMANDS["maps"], *options, "--of", "overall", "--ratio", "0.4"]) == 0, (
        capsys.readouterr()
    )
    tree = ifa.open("turned-maps/maps/fullcam-basis")
    basis, run = ifa.basis.load("five.safetensors"), ifa.open("turned")
    images = torch.stack([one for one, *_ in ifa.nets.digits("held-out")[:40]])
    torch.manual_seed(0)
    net = ifa.nets.digits_cnn().eval()
    mask = ifa.select.largest(run["conv3"]["importance_overall"], ratio=0.4)
    maps = ifa.explain(net, images, 1, layer="conv3", basis=basis, mask=mask, scale=run)
    np.testing.assert_allclose(tree["conv3"]["map"].sel(target=1), maps, rtol=1e-3, atol=1e-4)
    assert ifa.open("turned-maps/maps/fullcam")["conv3"]["map"].shape == (3, 40, 8, 8)


def test_a_table_in_a_basis_has_the_methods_that_can_be_in_one(typed, monkeypatch, capsys):
    from ifa.cli import main

    monkeypatch.chdir(typed)
    options = ["--basis", "five.safetensors", "--metrics", "sparseness"]
    with pytest.warns(ifa.BasisDependent):
        assert main([*COMMANDS["evaluate"], *options]) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert "scorecam is left out" in said
    assert "kernel with basis=" in said
    basis = ifa.basis.load("five.safetensors")
    methods = ifa.contest.cam_methods("conv3", basis=basis)
    torch.manual_seed(0)
    net, images = ifa.nets.digits_cnn().eval(), torch.rand(2, 1, 8, 8)
    expected = ifa.explain(net, images, layer="conv3", basis=basis, weight=ifa.weight.gradcam)
    torch.testing.assert_close(methods["gradcam"](net, images, None), expected)
    assert methods["noise"](net, images, None).shape == (2, 8, 8)


def test_principal_features_and_pictures_by_command_are_in_the_basis(typed, monkeypatch, capsys):
    from ifa.cli import main

    monkeypatch.chdir(typed)
    assert main([*COMMANDS["diagnose"], "--basis", "five.safetensors", "--pictures", "drawn"]) == 0
    said = capsys.readouterr().out
    assert "principal features of layer conv3: " in said
    assert "of 5 atoms" in said
    assert main([*COMMANDS["diagnose"][:2], "--basis", "five.safetensors"]) == 1
    assert "expected MODEL and DATA with --basis" in capsys.readouterr().err
    words = ["explain", "mine.py:net", "digit.npy", "--target", "1", "--basis", "five.safetensors"]
    assert main([*words, "--layer", "conv3", "--out", "free"]) == 0, capsys.readouterr()
    assert main([*words, "--run", "turned", "--out", "scaled"]) == 0, capsys.readouterr()
    maps = [xr.open_zarr(f"{one}/maps.zarr") for one in ("free", "scaled")]
    xr.testing.assert_equal(*maps)
    made_by = json.loads(maps[0].attrs["made_by"])
    assert made_by["basis"] == ifa.basis.digest(ifa.basis.load("five.safetensors"))


def test_what_is_found_in_a_basis_is_said_of_atoms():
    from matplotlib import pyplot as plt

    net, data = population(48)
    data = [(one, n % 2) for n, (one, _) in enumerate(data)]
    basis = dictionary(net, data, "balanced", atoms=4)
    options = {"basis": basis, "keep_samples": "full", "targets": [0, 1]}
    one, two = run(net, data[:24], **options), run(net, data[24:], **options)
    right = [(one, int(net(one[None]).argmax())) for one, _ in data]
    whole = run(net, right, basis=basis, targets=[0, 1])
    principal = ifa.diagnose.principal_features
    found = {
        "redundancy": ifa.diagnose.redundancy(one),
        "shift": ifa.diagnose.shift(one, two),
        "agreement": ifa.diagnose.agreement(one, two),
        "confounders": ifa.diagnose.confounders(one, np.arange(24) // 3 % 2, draws=99),
        "features": principal(net, LAYER, right, whole, basis=basis, by="importance", seeds=(0,)),
    }
    for name, each in found.items():
        assert "atom" in each.dims, name
        assert not [dim for dim in each.dims if str(dim).startswith("channel")], name
        figure = ifa.plot.diagnosis(each)
        written = [text.get_text() for text in figure.findobj(plt.Text)]
        said = " ".join([ifa.diagnose.summary(each), *written])
        assert "atom" in said, name
        assert "channel" not in said, name
        plt.close(figure)
    axes = ifa.plot.distributions(one, 3)
    assert axes.get_xlabel() == "importance of atom 3 (logit)"
    plt.close(axes.figure)
    plain = run(net, data[24:], keep_samples="full", targets=[0, 1])
    other = dictionary(net, data, "pca", atoms=4)
    turned = run(net, data[24:], **{**options, "basis": other})
    for call in (ifa.diagnose.shift, ifa.diagnose.agreement):
        for its in (plain, turned):
            with pytest.raises(ValueError, match="expected two runs in one basis, got atoms"):
                call(one, its)


NAMED = ["a rim", "", "Würfel", "a rim", "5"]


@pytest.mark.parametrize("suffix", ["safetensors", "zarr"])
def test_names_of_atoms_are_stored_and_are_no_part_of_the_digest(suffix, tmp_path):
    found = ifa.basis.Dictionary(torch.eye(5), torch.eye(5), torch.zeros(5))
    assert ifa.basis.names(found) == ("",) * 5
    known = ifa.basis.named(found, NAMED)
    ifa.basis.save(known, tmp_path / f"basis.{suffix}")
    again = ifa.basis.load(tmp_path / f"basis.{suffix}")
    assert ifa.basis.names(again) == tuple(NAMED)
    assert ifa.basis.digest(again) == ifa.basis.digest(found)
    other = ifa.basis.named(again, {1: "sky"})
    assert ifa.basis.names(other) == ("a rim", "sky", *NAMED[2:])
    assert ifa.basis.names(ifa.basis.named(other, [""] * 5)) == ("",) * 5


def test_a_run_goes_on_when_its_atoms_are_named_and_can_say_their_names(tmp_path):
    net, data = population()
    found = ifa.basis.Dictionary(torch.eye(5), torch.eye(5), torch.zeros(5))
    known = ifa.basis.named(found, NAMED)
    options = {"store": tmp_path / "run", "keep_samples": "full"}
    tree = run(net, data, basis=found, **options)
    again = run(net, data, basis=known, **options)  # another one would be refused
    assert again.attrs["spec"] == tree.attrs["spec"]
    assert tree[LAYER].attrs["origin"] == again[LAYER].attrs["origin"]
    ifa.explain(net, data[0][0][None], 1, layer=LAYER, basis=known, scale=tree)
    seen = ifa.basis.name_atoms(tree, {LAYER: known})
    for name in (LAYER, f"samples/{LAYER}"):
        assert seen[name]["atom_name"].values.tolist() == NAMED
    assert "atom_name" not in tree[LAYER].coords
    assert "atom_name" in ifa.difference(seen).coords
    with pytest.raises(ValueError, match="analyzed in"):
        ifa.basis.name_atoms(tree, known._replace(mean=torch.ones(5)))
    with pytest.raises(ValueError, match="one of channels"):
        ifa.basis.name_atoms(run(net, data), known)


def test_names_that_are_none_are_refused():
    found = ifa.basis.Dictionary(torch.eye(2), torch.eye(2), torch.zeros(2))
    for names in (["a"], "ab", {2: "a"}, {0: "a\nb"}, ["a", "b\n"], ["a", 3]):
        with pytest.raises(ValueError, match=r"ifa\.basis\.named: expected"):
            ifa.basis.named(found, names)
    with pytest.raises(ValueError, match="names of 2 atoms"):
        ifa.basis.names(found._replace(names=torch.ones(3, dtype=torch.uint8)))


def test_cards_and_galleries_of_atoms_have_their_names_and_their_own_maps():
    from matplotlib import pyplot as plt

    from ifa.diagnose.rows import table_of
    from ifa.plot.singles import maps_of

    net, data = population()
    data = [(one, 1, f"sample-{n}") for n, (one, _) in enumerate(data)]
    found = ifa.basis.named(dictionary(net, data, "rotation"), {1: "a rim"})
    tree = run(net, data, basis=found, keep_samples="full", targets=[0, 1])
    table, rows = table_of(tree, None, "test"), np.arange(3, 15)
    made = [maps_of("test", net, data, table, rows, k, tree[LAYER], basis=found) for k in range(5)]
    limit = float(made[0][1].label.split()[4])
    inputs = torch.stack([data[n][0] for n in table.sample[rows]])
    targets = torch.as_tensor(table.target[rows])
    whole = ifa.explain(net, inputs, targets, layer=LAYER, rectify=False)
    total = sum(np.stack(maps) for maps, _ in made) * limit
    np.testing.assert_allclose(total, whole, atol=5e-3 * limit)  # three digits are in the label
    card = ifa.plot.channel_card(tree, data, 1, model=net, basis=found, samples=3)
    assert card.subfigs[0].get_suptitle().startswith(f"atom 1: a rim of {LAYER}")
    assert "common scale: 1 =" in card.subfigs[0].axes[-1].get_xlabel()
    axes = ifa.plot.features(tree, data, net, [1, 4], basis=found, samples=3)
    assert [row[0].texts[0].get_text() for row in axes] == ["atom 1: a rim", "atom 4"]
    best = table.id[table.importance[:, 4].argmax()]
    assert axes[1, 0].get_title().startswith(best)
    plt.close("all")
    with pytest.raises(ValueError, match="these very maps"):
        ifa.plot.features(tree, data, net, [1])
    with pytest.raises(ValueError, match="got both"):
        ifa.plot.channel_card(tree, data, 1, model=net, basis=found, maps=made)
    with pytest.raises(IndexError, match=r"atoms in 0\.\.4, got 5"):
        ifa.plot.features(tree, data, net, [5], basis=found)
