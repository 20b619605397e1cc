"""Every law is seen to fail, on an implementation with the mistake that it is there to find."""

import copy
import itertools
import shutil
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import Phase, settings
from test_laws import analysis

import ifa
from ifa.testing import assert_leaves_model_untouched, assert_trees_close, laws, models
from ifa.types import Reduction


@pytest.fixture(autouse=True, scope="module")
def _first_counterexample_is_enough():
    before = settings.get_current_profile_name()
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("red", settings.get_profile("ci"), phases=phases)
    settings.load_profile("red")
    yield
    settings.load_profile(before)


# ---- weightings


def gradcam(activations, gradients):
    return gradients.flatten(1).mean(1)


def by_position_in_the_layer(activations, gradients):
    return gradcam(activations, gradients) * torch.arange(len(gradients))


def first_position_only(activations, gradients):
    return gradients.flatten(1)[:, 0]


def running_sum(activations, gradients):
    return gradients.cumsum(-1)


def squashed(activations, gradients):
    return gradcam(activations, gradients).tanh()


def biased(activations, gradients):
    return gradcam(activations, gradients) + 1e-3


class Remembering:
    """A kernel that depends on how often it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, activations, gradients):
        self.calls += 1
        return gradcam(activations, gradients) + self.calls


def rectifying_in_place(activations, gradients):
    return gradients.relu_().clone()


def without_epsilon(activations, gradients):
    return (activations * gradients).flatten(1).sum(1) / activations.flatten(1).sum(1)


def of_wrong_shape(activations, gradients):
    return gradients.flatten(1)[:, :1]


# ---- reductions


def monoid(init, lift, merge, finalize=lambda state: state):
    return ifa.reduce.from_monoid(init=init, lift=lift, merge=merge, finalize=finalize)


def zeros(like):
    return like.new_zeros(like.shape[1:], dtype=torch.float64)


def total(batch):
    return batch.double().sum(0)


ignored_empty = monoid(lambda like: zeros(like) + 1, total, torch.add)
mean_of_means = monoid(zeros, lambda b: b.double().mean(0), lambda a, b: (a + b) / 2)
last_sample = monoid(zeros, lambda batch: batch[-1].double(), lambda a, b: b)
python_count = monoid(
    lambda like: (zeros(like), 0),
    lambda batch: (total(batch), len(batch)),
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
    lambda state: state[0],
)
merging_in_place = monoid(zeros, total, lambda a, b: a.add_(b))


class Sums(NamedTuple):
    count: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


class Spread(NamedTuple):
    variance: torch.Tensor


def _spread(state):
    mean = state.first / state.count
    return Spread((state.second / state.count - mean**2) * state.count / (state.count - 1))


sums_of_squares = monoid(
    lambda like: Sums(
        torch.zeros(()), like.new_zeros(like.shape[1:]), like.new_zeros(like.shape[1:])
    ),
    lambda b: Sums(torch.tensor(float(len(b))), b.sum(0), b.square().sum(0)),
    lambda a, b: Sums(*(x + y for x, y in zip(a, b, strict=True))),
    _spread,
)


class HalfUpdated:
    """Merges well, but its update forgets what came before."""

    right = ifa.reduce.moments()
    reduction = Reduction(right.init, lambda state, b: right_update(b), right.merge, right.finalize)


def right_update(batch):
    right = ifa.reduce.moments()
    return right.update(right.init(batch), batch)


# ---- chains and steps


def starting_with_relu(*steps):
    return ifa.chain(ifa.relu, *steps)


def right_to_left(*steps):
    return ifa.chain(*reversed(steps))


def without_the_last(*steps):
    return ifa.chain(*steps[:-1])


def unpicklable(*steps):
    made = ifa.chain(*steps)
    return lambda value: made(value)


class RememberingStep:
    def __init__(self):
        self.calls = 0

    def __call__(self, value):
        self.calls += 1
        return value._replace(values=value.values + self.calls)


def relu_in_place(value):
    return value._replace(values=value.values.relu_())


def next_target(value):
    return value._replace(target=value.target + 1)


# ---- filters and masks


def over_values(change):
    return lambda image: lambda value: value._replace(values=change(value.values))


def summed_pairs(values):
    return torch.cat([values, torch.zeros_like(values[..., :1])], -1).unfold(-1, 2, 1).sum(-1)


def edged(mask):
    return mask.roll(1, -1) | mask


def emptied(mask):
    return mask & False


def grown_by_one(mask):
    return mask if mask.all() or not mask.any() else edged(mask)


def cumulated(values):
    count = torch.arange(1, values.shape[-1] + 1)
    return values.cumsum(-1) / count


zero_padded = over_values(lambda values: summed_pairs(values) / 2)
filtering_sizes = over_values(torch.abs)
looking_back = over_values(cumulated)


# ---- scales


def step_of(function):
    """Make a builder of steps from (values, scale) -> values."""
    return lambda scale: lambda value: value._replace(values=function(value.values, scale))


without_low = step_of(lambda values, scale: values / scale.high)
unchanged = step_of(lambda values, scale: values)
reversing = step_of(lambda values, scale: (scale.high - values) / (scale.high - scale.low))


def zero_is_missing(values, scale):
    low = scale.low if scale.low else values.amin()
    high = scale.high if scale.high else values.amax()
    return (values - low) / (high - low + 1e-7)


def first_row(make, scale):
    return make(ifa.Scale(*(torch.atleast_1d(limit)[0] for limit in scale)))


# ---- selections


def threshold(values, *, ratio, keep_ties):
    count = max(1, round(ratio * values.shape[-1]))
    limit = values.sort(-1, descending=True).values[..., count - 1 : count]
    return values >= limit if keep_ties else values > limit


def ties_to_the_higher_index(values, *, ratio):
    return ifa.select.largest(values.flip(-1), ratio=ratio).flip(-1)


def absolute_in_place(values, *, ratio):
    return ifa.select.largest(values.abs_(), ratio=ratio)


def smallest_of_same_number(values, *, ratio):
    return ifa.select.largest(-values.abs(), ratio=ratio)


def without_labels(values, *, ratio):
    return ifa.select.largest(torch.tensor(np.asarray(values)), ratio=ratio)


def labels_in_order(values, *, ratio):
    mask = ifa.select.largest(values, ratio=ratio)
    return mask if torch.is_tensor(mask) else mask.assign_coords(target=range(len(mask)))


# ---- taps


def tampered(change):
    """Make a builder of taps whose result, or whose model, is changed by ``(model, inputs, x)``."""

    def build(model, layer, example, **options):
        tapped = ifa.tap(model, layer, example, **options)

        def call(inputs, target=None):
            return change(model, inputs, tapped(inputs, target))

        return call

    return build


def mean_score(model, inputs, features):
    return features._replace(gradients=features.gradients / (len(inputs) + 1))


def overwritten(model, inputs, features):
    return features._replace(activations=features.activations.relu())


def slightly_steeper(model, inputs, features):
    return features._replace(gradients=features.gradients * 1.01)


def scaled_by_the_batch(model, inputs, features):
    return features._replace(gradients=features.gradients * features.activations.max())


def with_graph(model, inputs, features):
    return features._replace(activations=features.activations.requires_grad_())


def filling_grad(model, inputs, features):
    next(model.parameters()).square().sum().backward()
    return features


def drawing_randomly(model, inputs, features):
    torch.rand(1)
    return features


def training(model, inputs, features):
    model.get_submodule("relu").train()  # which changes nothing else
    return features


def editing_inputs(model, inputs, features):
    inputs.add_(1)
    return features


def writing_buffers(model, inputs, features):
    for buffer in model.buffers():
        buffer.add_(1)
    return features


def leaving_a_hook(model, layer, example, **options):
    """Hook the model itself, and forget to remove the hook if something raises."""
    tapped = ifa.tap(model, layer, example, **options)

    def call(inputs, target=None):
        handle = model.register_forward_hook(lambda module, args, output: None)
        features = tapped(inputs, target)
        handle.remove()
        return features

    return call


def swallowing(model, layer, example, **options):
    tapped = ifa.tap(model, layer, example, **options)

    def call(inputs, target=None):
        try:
            return tapped(inputs, target)
        except Exception:
            return None

    return call


def doubling_what_is_in_a_tuple(model, layer, example, **options):
    tapped = ifa.tap(model, layer, example, **options)
    if isinstance(example, torch.Tensor):
        return tapped
    return lambda inputs, target=None: tapped((2 * inputs[0],), target)


def on_tap(law, tap, build=models.batch_norm, layer="conv"):
    model = build()
    law(model, layer, models.inputs(model), tap=tap, examples=5)


# ---- stores


def forgetting_attributes(run):
    tree = ifa.open(run)
    tree.attrs = {}
    return tree


def different_in_memory(store, seed):
    return analysis(store, seed if store else seed + 1)


def overwriting(store, seed):
    if store:
        shutil.rmtree(store, ignore_errors=True)
    return analysis(store, seed)


def returning_any_run(store, seed):
    return ifa.open(store) if store.exists() else analysis(store, seed)


def refusing_too_late(store, seed):
    (store.parent / "run").mkdir(exist_ok=True)
    (store / "note.txt").write_text(str(seed)) if (store / "COMMIT.json").exists() else None
    return analysis(store, seed)


# ---- metrics of maps


def gini_of_a_sum(map, labels):
    ordered = map.abs().flatten().sort().values
    place = 2 * torch.arange(1, len(ordered) + 1) - len(ordered) - 1
    return (place * ordered).sum() / ordered.sum()


def with_epsilon(map, labels):
    return (map / (map.amax() + 1e-7)).mean()


def first_maximum(map, labels):
    return (labels.flatten()[map.argmax()] == 1).double()


def counting_calls(map, labels, calls=[]):  # noqa: B006 (that is the mistake)
    calls.append(1)
    return map.sum() + len(calls)


def nothing_is_zero(map, labels):
    return ifa.evaluate.relevance_mass(map, labels == 1).nan_to_num()


def rectifying_the_map(map, labels):
    return map.clamp_(min=0).sum()


# ---- metrics that run the network


def confidence_of(model, inputs, maps, target, chunk=None):
    """Give the score of inputs masked with the maps scaled by the extremes of the batch."""
    axes = tuple(range(target.ndim, maps.ndim))
    low, high = maps.amin(axes, keepdim=True).amin(), maps.amax(axes, keepdim=True).amax()
    scaled = (maps - low) / (high - low)
    return ifa.evaluate.confidence(model, inputs, scaled, target, scaled=True).after


def noise_by_the_portion(model, inputs, maps, target, chunk=None):
    return ifa.evaluate.infidelity(model, inputs, maps, target, draws=2, seed=chunk or 0)


def first_row_of_targets(model, inputs, maps, target, chunk=None):
    if target.ndim == 2:
        target = target[:1].expand_as(target)
    return ifa.evaluate.deletion(model, inputs, maps, target, steps=2).auc


def silence_is_zero(model, inputs, maps, target, chunk=None):
    return ifa.evaluate.deletion(model, inputs, maps, target, steps=2).auc.nan_to_num()


def blanking_the_inputs(model, inputs, maps, target, chunk=None):
    found = ifa.evaluate.deletion(model, inputs, maps, target, steps=2).auc
    inputs[:, :, 0] = 0
    return found


def blank_for_tuples(model, inputs, maps, target, chunk=None):
    maps = maps[0] if isinstance(maps, tuple) else maps
    found = ifa.evaluate.deletion(model, inputs, maps, target, steps=2).auc
    return 0 * found if isinstance(inputs, tuple) else found


signals = models.pooled_linear(1)
affine = partial(ifa.rescale), partial(ifa.unscale)
stored = partial(laws.a_store_gives_back_what_was_put_in, examples=2)
# ---- attributions

narrow = partial(models.pooled_linear, 1)
gradient = ifa.attribute.gradient


def doubling_in_tuples(model, chunk=8):
    base = gradient(model)
    return lambda inputs, target=None: base(
        tuple(2 * one for one in inputs) if isinstance(inputs, tuple) else inputs, target
    )


def attributed(change):
    """Make an attribution that changes what the gradient gives, or what it is given."""

    def build(model, chunk=8):
        base = gradient(model)
        return lambda inputs, target=None: change(base, inputs, target, chunk)

    return build


def without_channels(base, inputs, target, chunk):
    return base(inputs, target).sum(1)


def scaled_by_the_batchs_range(base, inputs, target, chunk):
    return base(inputs, target) * (inputs.max() - inputs.min())


def first_target_of_many(base, inputs, target, chunk):
    found = base(inputs, target)
    return found[:1].expand_as(found) if found.ndim > inputs.ndim else found


def centring_the_inputs(base, inputs, target, chunk):
    return base(inputs.sub_(inputs.mean()), target)


def averaged_over_chunks(base, inputs, target, chunk):
    return base(inputs, target) / chunk


class ClaimingToBeComplete:
    """Sums to nothing known, and says that it does."""

    def __init__(self, model):
        self.base = gradient(model)

    def __call__(self, inputs, target):
        return inputs * self.base(inputs, target)

    def observe(self, inputs, target):
        values = self(inputs, target)
        total = values.flatten(1).sum(1) + 1
        return values, total, values.flatten(1).sum(1) - total


def one_more_draw(attribution):
    return lambda inputs, target: attribution(inputs, target) * 3 / 2


def negated_and_rectified(attribution):
    return lambda inputs, target: attribution(inputs, target).relu() - 1


CALLS = itertools.count(1)


def reading_the_chain(attribution):
    factor = next(CALLS)
    return lambda inputs, target: attribution(inputs, target) * factor


def tiling_evenly(model, layer, example):
    units = torch.tensor(ifa.trace(model, example)[layer].shape[1:])
    step = torch.tensor(example.shape[2:]) / units
    return ifa.Positions((step - 1) / 2, step)


def from_the_first_pixel(positions, size):
    return ifa.place(ifa.Positions(0 * positions.start, positions.step), size)


def without_dilation(model, stride=1, pool="exact"):
    """Take the strides out of convolutions, and change nothing else."""
    net = torch.nn.ModuleDict({"net": copy.deepcopy(model)})
    for part in net.modules():
        if isinstance(part, torch.nn.modules.conv._ConvNd):
            part.stride = (1,) * len(part.stride)
    net.forward = net["net"].forward
    return net


def right_but_for_the_last_bits(model, stride=1):
    twin = copy.deepcopy(model)
    for values in twin.parameters():
        values.mul_(1 + 2**-51)
    return ifa.dense.densify(twin, stride=stride)


def as_it_was(model, stride=1, pool="exact"):
    return ifa.dense.densify(model, stride=64)


def with_an_exact_mean(model, stride=1, pool="exact"):
    return ifa.dense.densify(model, stride=stride)


def with_a_dense_mean(model, stride=1):
    return ifa.dense.densify(model, stride=stride, pool="dense")


# ---- bases


def projected(change):
    """Make a projection of which the features are changed by ``(features, dictionary, seen)``."""

    def project(dictionary):
        return lambda seen: change(ifa.project(dictionary)(seen), dictionary, seen)

    return project


def gradients_by_the_encoder(features, dictionary, seen):
    codes = torch.einsum("kc,c...->k...", dictionary.encode.to(seen.gradients), seen.gradients)
    return features._replace(gradients=codes * 1.001)


def centred_codes(features, dictionary, seen):
    mean = ifa.basis.fill(dictionary).to(features.activations)
    spread = mean.reshape(-1, *(1,) * (features.activations.ndim - 1))
    return features._replace(activations=features.activations - spread)


def largest_code_alone(features, dictionary, seen):
    first = torch.arange(len(features.activations)) == 0
    spread = first.reshape(-1, *(1,) * (features.activations.ndim - 1))
    return features._replace(activations=features.activations * (1 + spread))


def scaling_the_layer(features, dictionary, seen):
    seen.activations.mul_(2)
    return features


RED = [
    (laws.a_full_orthonormal_basis_changes_no_map, projected(gradients_by_the_encoder)),
    (laws.the_identity_basis_gives_the_channels, projected(centred_codes)),
    (laws.permuting_atoms_permutes_importances, projected(largest_code_alone)),
    (laws.what_no_atom_holds_is_the_rest, projected(centred_codes)),
    (laws.projecting_leaves_its_input, projected(scaling_the_layer)),
    (laws.a_finer_grid_is_exact, right_but_for_the_last_bits),
    (laws.a_finer_grid_lies_where_the_network_does, as_it_was),
    (laws.a_finer_grid_has_the_networks_own_gradients, with_a_dense_mean),
    (laws.a_finer_grid_has_the_networks_own_gradcam, with_a_dense_mean),
    (laws.a_finer_grid_is_made_of_shifts, without_dilation),
    (laws.a_dense_mean_makes_maps_complete, with_an_exact_mean),
    (laws.permuting_channels_permutes_weights, by_position_in_the_layer),
    (laws.flipping_space_flips_spatial_weights, first_position_only),
    (laws.flipping_space_flips_spatial_weights, running_sum),
    (laws.doubling_gradients_doubles_weights, squashed),
    (partial(laws.doubling_gradients_doubles_weights, degree=2), gradcam),
    (laws.zero_gradients_give_zero_weights, biased),
    (laws.weighting_a_batch_equals_a_loop, Remembering()),
    (laws.weighting_leaves_its_inputs, rectifying_in_place),
    (laws.weights_are_always_finite, without_epsilon),
    (laws.weights_are_always_finite, of_wrong_shape),
    (laws.an_empty_state_is_the_identity, ignored_empty),
    (laws.splits_do_not_matter, mean_of_means),
    (laws.splits_do_not_matter, HalfUpdated.reduction),
    (laws.order_does_not_matter, last_sample),
    (laws.merging_is_associative, mean_of_means),
    (laws.a_state_survives_the_store, python_count),
    (laws.a_reduction_leaves_its_arguments, merging_in_place),
    (
        laws.a_statistic_equals_its_definition,
        ifa.reduce.moments(ddof=0),
        lambda data: (np.asarray(len(data)), data.mean(0), data.var(0, ddof=1)),
    ),
    (laws.a_variance_survives_far_from_zero, sums_of_squares),
    (laws.an_empty_chain_is_the_identity, starting_with_relu),
    (laws.chaining_is_associative, right_to_left),
    (laws.a_chain_of_one_is_its_step, without_the_last),
    (laws.a_chain_pickles, unpicklable),
    (laws.a_step_over_a_batch_equals_a_loop, RememberingStep()),
    (laws.a_step_leaves_its_input, relu_in_place),
    (laws.a_step_leaves_its_input, next_target),
    (laws.a_step_refuses_a_batch, lambda value: value),
    (laws.a_filter_keeps_a_constant, zero_padded),
    (laws.a_filter_is_linear_in_the_map, filtering_sizes),
    (laws.flipping_space_flips_what_is_filtered, looking_back),
    (laws.filling_only_adds, emptied),
    (laws.filling_twice_is_filling_once, grown_by_one),
    (laws.low_and_high_go_to_the_limits, without_low, affine[1]),
    (laws.low_and_high_go_to_the_limits, affine[0], unchanged),
    (laws.a_limit_of_zero_is_honoured, step_of(zero_is_missing), affine[1]),
    (laws.rescaling_keeps_the_order, reversing, affine[1]),
    (laws.rescaling_keeps_the_order, affine[0], reversing),
    (laws.unscaling_undoes_rescaling, affine[0], unchanged),
    (laws.each_target_has_its_own_scale, partial(first_row, ifa.rescale), affine[1]),
    (laws.each_target_has_its_own_scale, affine[0], partial(first_row, ifa.unscale)),
    (laws.exactly_k_channels_are_kept, partial(threshold, keep_ties=True)),
    (laws.exactly_k_channels_are_kept, partial(threshold, keep_ties=False)),
    (laws.strongest_are_kept_and_ties_go_to_the_lower, ties_to_the_higher_index),
    (laws.strongest_are_kept_and_ties_go_to_the_lower, ifa.select.largest_absolute),
    (laws.a_ratio_of_one_keeps_all, partial(threshold, keep_ties=False)),
    (laws.selecting_leaves_the_values, absolute_in_place),
    (laws.labels_are_kept, without_labels),
    (laws.labels_are_kept, labels_in_order),
    (
        laws.a_selection_is_the_complement_of,
        smallest_of_same_number,
        ifa.select.largest_absolute,
    ),
    (partial(on_tap, laws.a_tap_equals_autograd), tampered(mean_score)),
    (partial(on_tap, laws.a_tap_equals_autograd), tampered(with_graph)),
    (
        partial(on_tap, laws.a_tap_equals_autograd),
        tampered(overwritten),
        models.inplace,
        "conv2",
    ),
    (partial(on_tap, laws.a_tap_equals_finite_differences), tampered(slightly_steeper)),
    (partial(on_tap, laws.a_tap_treats_each_sample_alone), tampered(scaled_by_the_batch)),
    (partial(on_tap, laws.a_tap_takes_a_tuple_as_it_takes_a_tensor), doubling_what_is_in_a_tuple),
    *(
        (partial(on_tap, laws.a_tap_leaves_the_model), tap)
        for tap in (
            tampered(filling_grad),
            tampered(drawing_randomly),
            tampered(training),
            tampered(editing_inputs),
            tampered(writing_buffers),
            leaving_a_hook,
            swallowing,
        )
    ),
    (laws.positions_are_centers_of_what_units_see, tiling_evenly),
    (laws.placing_evenly_is_resizing, from_the_first_pixel),
    (partial(stored, open=forgetting_attributes), analysis),
    (stored, different_in_memory),
    (partial(laws.repeating_an_analysis_changes_nothing, examples=2), overwriting),
    (partial(laws.another_analysis_is_refused, examples=2), overwriting),
    (partial(laws.another_analysis_is_refused, examples=2), returning_any_run),
    (partial(laws.another_analysis_is_refused, examples=2), refusing_too_late),
    (
        partial(laws.verifying_passes_until_a_byte_changes, verify=lambda run: None, examples=2),
        analysis,
    ),
    (laws.a_map_metric_stays_in_its_bounds, gini_of_a_sum),
    (laws.a_map_metric_does_not_depend_on_the_unit, with_epsilon),
    (laws.permuting_positions_changes_nothing, first_maximum),
    (laws.a_map_metric_over_a_batch_equals_a_loop, counting_calls),
    (laws.a_map_that_shows_nothing_has_no_value, nothing_is_zero),
    (laws.a_map_metric_leaves_its_arguments, rectifying_the_map),
    (laws.a_metric_treats_each_sample_alone, confidence_of, signals),
    (laws.a_metric_does_not_depend_on_its_portions, noise_by_the_portion, signals),
    (laws.a_metric_of_many_targets_is_that_of_each, first_row_of_targets, signals),
    (laws.a_silent_map_has_no_value, silence_is_zero, signals),
    (laws.a_metric_takes_a_tuple_as_it_takes_a_tensor, blank_for_tuples, signals),
    (laws.a_metric_leaves_model_and_arguments, blanking_the_inputs, signals),
    (
        laws.an_attribution_treats_each_sample_alone,
        attributed(scaled_by_the_batchs_range),
        narrow(),
    ),
    (laws.an_attribution_is_shaped_like_the_inputs, attributed(without_channels), narrow()),
    (
        laws.an_attribution_of_many_targets_is_that_of_each,
        attributed(first_target_of_many),
        narrow(),
    ),
    (laws.an_attribution_takes_a_tuple_as_it_takes_a_tensor, doubling_in_tuples, narrow()),
    (laws.an_attribution_leaves_model_and_inputs, attributed(centring_the_inputs), narrow()),
    (
        laws.an_attribution_does_not_depend_on_its_chunk,
        attributed(averaged_over_chunks),
        narrow(),
    ),
    (laws.an_attribution_is_complete, ClaimingToBeComplete, narrow()),
    (
        laws.a_linear_network_has_a_closed_form,
        ifa.attribute.input_times_gradient,
        lambda row, inputs: row,
    ),
    (laws.a_transform_without_noise_is_its_limit, one_more_draw, narrow()),
    (
        laws.transforms_commute,
        ifa.attribute.times_input,
        negated_and_rectified,
        narrow(),
    ),
    (laws.chaining_transforms_is_applying_them, (reading_the_chain,), narrow()),
]


def name(part):
    """Tell a law by the innermost function with a name."""
    while isinstance(part, partial):
        part = part.args[0] if part.func is on_tap else part.func
    return part.__name__


@pytest.mark.parametrize("row", RED, ids=lambda row: name(row[0]))
def test_a_law_goes_red(row):
    law, *broken = row
    with pytest.raises(AssertionError):
        law(*broken)


def test_every_law_has_gone_red():
    every = (value for value in vars(laws).values() if callable(value))
    shipped = {law.__name__ for law in laws.LAWS}
    assert {name(row[0]) for row in RED} == shipped
    # a function of `laws` that asks for examples is a law, and so listed
    takers = {
        value.__name__
        for value in every
        if "examples" in getattr(value, "__annotations__", {}) and value.__name__[0] != "_"
    }
    assert takers == shipped


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}),
        ((torch.ones(2),), [torch.ones(2)]),
        (ifa.Scale(torch.ones(()), torch.ones(())), (torch.ones(()), torch.ones(()))),
        (torch.ones(2), torch.ones(2, 1)),
        (torch.ones(2), torch.ones(2, dtype=torch.float64)),
        (torch.ones(2), torch.ones(2) + 1e-3),
        (torch.ones(2), torch.tensor([1.0, torch.nan])),
    ],
    ids=["key", "nesting", "record", "shape", "dtype", "value", "nan"],
)
def test_trees_that_differ_are_not_close(actual, expected):
    with pytest.raises(AssertionError):
        assert_trees_close(actual, expected)


def test_the_leaf_that_differs_is_named():
    with pytest.raises(AssertionError, match=r"leaf \['b'\]\[1\]"):
        assert_trees_close({"a": 1.0, "b": (2.0, 3.0)}, {"a": 1.0, "b": (2.0, 4.0)})


def replace_parameter(model):
    model.conv.weight = torch.nn.Parameter(model.conv.weight.detach().clone())


TOUCHES = {
    "parameter": lambda model: model.conv.weight.detach().add_(1),
    "replaced parameter": replace_parameter,
    "requires_grad": lambda model: model.conv.weight.requires_grad_(False),
    "buffer": lambda model: model.norm.running_mean.add_(1),
    "grad": lambda model: model.conv.weight.sum().backward(),
    "forward hook": lambda model: model.conv.register_forward_hook(print),
    "pre-hook": lambda model: model.conv.register_forward_pre_hook(print),
    "backward hook": lambda model: model.conv.register_full_backward_hook(print),
    "training flag": lambda model: model.relu.train(),
    "new module": lambda model: model.add_module("extra", torch.nn.ReLU()),
    "random state": lambda model: torch.rand(1),
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES.keys())
def test_a_touched_model_is_noticed(touch):
    model = models.batch_norm()
    with (
        pytest.raises(AssertionError, match="left as it was"),
        assert_leaves_model_untouched(model),
    ):
        touch(model)


def test_a_network_that_only_ran_is_untouched():
    model = models.batch_norm()
    with assert_leaves_model_untouched(model):
        model(models.inputs(model)).sum().item()
