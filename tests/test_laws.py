"""Everything public is held to its laws, by tables that a test keeps complete: one row each."""

import inspect
from functools import partial
from math import atanh, tanh
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ifa
from ifa import (
    evaluate,
    reduce,
    resizing,
    scaling,
    select,
    stages,
    weight,
)
from ifa.declared import declared
from ifa.network.scorers import Scorer
from ifa.reduce.moments import WeightedValues
from ifa.reduce.tops import Ranked
from ifa.testing import laws, models, strategies


def pairs(table, kind):
    """Give every (name, law) of a table, with a readable id."""
    return [pytest.param(name, law, id=f"{name}-{law.__name__}") for name in table for law in kind]


def public_functions(module):
    own = inspect.getmembers(module, inspect.isfunction)
    return {name for name, f in own if f.__module__ == module.__name__ and not name.startswith("_")}


class Weighting(NamedTuple):
    """How a kernel is held to the laws; most need nothing said."""

    degree: float = 1  # of homogeneity in the gradients
    exempt: tuple = ()  # laws that its definition breaks, and that must then be broken
    generic: bool = False  # whether it is defined only where no two values coincide


KERNELS = [n for n in weight.__all__ if declared(getattr(weight, n), "kind", "kernel") == "kernel"]
# A new weighting is held to every law without a row here; its one row is in tests/test_weight.py.
WEIGHTINGS = {name: Weighting() for name in KERNELS} | {
    "bagcam": Weighting(exempt=(laws.doubling_gradients_doubles_weights,)),
    "eigencam": Weighting(degree=0, generic=True, exempt=(laws.zero_gradients_give_zero_weights,)),
    "eigengradcam": Weighting(generic=True),
    "gradcam_plus_plus": Weighting(exempt=(laws.doubling_gradients_doubles_weights,)),
    "randomcam": Weighting(
        degree=0,
        exempt=(
            laws.permuting_channels_permutes_weights,
            laws.zero_gradients_give_zero_weights,
        ),
    ),
}


@pytest.mark.parametrize(("name", "law"), pairs(WEIGHTINGS, laws.WEIGHTING))
def test_weighting(name, law):
    kernel, case = getattr(weight, name), WEIGHTINGS[name]
    options = {}
    if law is laws.doubling_gradients_doubles_weights:
        options["degree"] = case.degree
    if case.generic:
        batch = law is laws.weighting_a_batch_equals_a_loop
        options["features"] = strategies.features(samples=batch, generic=True)
    if law in case.exempt:
        with pytest.raises(AssertionError):
            law(kernel, **options)
    else:
        law(kernel, **options)


def test_no_row_of_a_weighting_is_stale():
    assert set(WEIGHTINGS) == set(KERNELS)


def magnitude(values):
    return values.abs()


@st.composite
def tables(draw):
    """Draw a batch (sample, channel), of which a reduction may want the channels."""
    count, channels = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    offset = draw(st.sampled_from([0.0, 1e4, -1e6]))
    return draw(strategies.tensors((count, channels), dtype=torch.float32)) + offset


@st.composite
def ranked_batches(draw):
    """Draw a batch for `top_samples` in which ties are common."""
    values = draw(tables()).round()
    return Ranked(values, 7 * torch.arange(len(values)))


@st.composite
def weighted_batches(draw):
    """Draw a batch for `weighted_moments`, with weights that may be zero."""
    values = draw(strategies.batches())
    few = st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=len(values), max_size=len(values))
    return WeightedValues(values, torch.tensor(draw(few)))


@st.composite
def rows(draw):
    """Draw a batch for `second_moments`, of as many gradients as activations."""
    values = draw(tables())
    return reduce.Rows(values, draw(strategies.tensors(tuple(values.shape), dtype=values.dtype)))


# Each reduction with a strategy for its batches; combinators are held around a reduction.
REDUCTIONS = {
    "cooccurrence": (reduce.cooccurrence(top=2), tables()),
    "covariance": (reduce.covariance(), tables()),
    "extrema": (reduce.extrema(), None),
    "from_monoid": (
        reduce.from_monoid(
            init=lambda like: torch.zeros((), dtype=torch.float64),
            lift=lambda batch: batch.double().sum(),
            merge=torch.add,
            finalize=torch.clone,
        ),
        None,
    ),
    "grouped": (reduce.grouped(reduce.moments(), size=3), strategies.grouped_batches(size=3)),
    "histogram": (reduce.histogram(bits=2, low=-3, high=5), None),
    "mapped": (reduce.mapped(magnitude, reduce.extrema()), None),
    "moments": (reduce.moments(), None),
    "population": (
        reduce.population(targets=2, groups=3, levels=[0.1, 0.5, 1.0]),
        strategies.observations(targets=2, groups=3),
    ),
    "second_moments": (reduce.second_moments(about="zero"), rows()),
    "top_samples": (reduce.top_samples(3), ranked_batches()),
    "weighted_moments": (reduce.weighted_moments(), weighted_batches()),
    "zipped": (reduce.zipped(moments=reduce.moments(ddof=0), extrema=reduce.extrema()), None),
}
NOT_REDUCTIONS = {"difference", "fold", "histogram_quantiles", "quantiles", "summarize"} | {
    "Observed",
    "Rows",
    "SecondMoments",
    "Shape",
    "Statistic",
    "Variable",
}


@pytest.mark.parametrize(("name", "law"), pairs(REDUCTIONS, laws.REDUCTION))
def test_reduction(name, law):
    reduction, batches = REDUCTIONS[name]
    law(reduction, batches=batches)


def test_every_reduction_has_a_row():
    assert set(REDUCTIONS) == set(reduce.__all__) - NOT_REDUCTIONS


def mean_and_variance(data):
    return data.mean(0), data.var(0, ddof=1)


def smallest_and_largest(data):
    return data.min(0), data.max(0)


DEFINITIONS = {
    "extrema": (reduce.extrema(), smallest_and_largest, tuple),
    "moments": (reduce.moments(), mean_and_variance, lambda statistic: statistic[1:]),
}


def second_moments_of_rows(data):
    data = data.reshape(len(data), -1)
    about = data.T @ data / len(data)
    return data.mean(0), np.atleast_2d(np.cov(data.T, bias=True)), data.mean(0), about


def as_rows(batch):
    table = batch.reshape(len(batch), -1)
    return reduce.Rows(table, table)


DEFINITIONS["second_moments"] = (
    reduce.mapped(as_rows, reduce.second_moments(about="zero")),
    second_moments_of_rows,
    tuple,
)


@pytest.mark.deep
@pytest.mark.parametrize("law", laws.REDUCTION, ids=lambda law: law.__name__)
def test_second_moments_often(law):
    reduction, batches = REDUCTIONS["second_moments"]
    law(reduction, batches=batches, examples=2000)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_statistic_equals_its_definition(name):
    reduction, definition, read = DEFINITIONS[name]
    laws.a_statistic_equals_its_definition(reduction, definition, read=read)


def test_a_variance_survives_far_from_zero():
    laws.a_variance_survives_far_from_zero(reduce.moments())


@pytest.mark.parametrize("law", laws.BASIS, ids=lambda law: law.__name__)
def test_project(law):
    law(ifa.project)


@pytest.mark.deep
@pytest.mark.parametrize("law", laws.BASIS, ids=lambda law: law.__name__)
def test_project_often(law):
    law(ifa.project, examples=2000)


@pytest.mark.parametrize("law", laws.CHAIN, ids=lambda law: law.__name__)
def test_chain(law):
    law(ifa.chain)


SCALE = ifa.Scale(torch.tensor(-1.0), torch.tensor([3.0]).squeeze())
SHIFTED = {n: ifa.Positions(torch.linspace(-1, 1, n), torch.linspace(2, 0.5, n)) for n in range(4)}
SIZE = (7, 4, 5)
STEPS = {
    "clip": ifa.clip(-1, 2),
    "minmax": ifa.minmax,
    "place": lambda value: ifa.place(SHIFTED[min(3, value.values.ndim)], SIZE[: value.values.ndim])(
        value
    ),
    "relu": ifa.relu,
    "rescale": ifa.rescale(SCALE),
    "resize": lambda value: ifa.resize(SIZE[: value.values.ndim])(value),
    "unscale": ifa.unscale(SCALE),
}
# Steps of other records, and what is no step.
OTHERS = {"builder", "combine", "combine_blocks", "keep", "step", "weigh"} | {
    *(
        "as_tensor",
        "by_output",
        "cancellation",
        "cancels",
        "check_method",
        "combination_cancels",
        "expect",
        "long_sum",
        "native",
        "product",
        "reads_gradients",
        "resized",
        "row",
        "wide",
    ),
    "weighing",
}


@pytest.mark.parametrize(("name", "law"), pairs(STEPS, laws.STEP))
def test_step(name, law):
    law(STEPS[name])


def test_every_step_has_a_row():
    modules = (public_functions(module) for module in (stages, scaling, resizing))
    assert set(STEPS) == set().union(*modules) - OTHERS - {"scale_from"}


def bent(part):
    """Where tanh scaling puts what affine scaling puts at `part`."""
    return tanh(atanh(0.05) + (atanh(0.95) - atanh(0.05)) * part)


# Options of `rescale` and `unscale`, and where they put the low and the high of a scale.
RESCALINGS = {
    "affine": ({}, (0.0, 1.0)),
    "affine-widened": ({"widen": 2.0}, (0.25, 0.75)),
    "affine-narrowed": ({"widen": 0.5}, (-0.5, 1.5)),
    "tanh": ({"how": "tanh"}, (0.05, 0.95)),
    "tanh-widened": ({"how": "tanh", "widen": 2.0}, (bent(0.25), bent(0.75))),
}


@pytest.mark.parametrize(("name", "law"), pairs(RESCALINGS, laws.RESCALE))
def test_rescaling(name, law):
    options, limits = RESCALINGS[name]
    law(partial(ifa.rescale, **options), partial(ifa.unscale, **options), limits=limits)


@given(strategies.maps(), st.floats(0.125, 64.0), st.floats(-64.0, 64.0))
def test_minmax_reaches_both_ends_and_forgets_unit_and_offset(value, unit, offset):
    scaled = ifa.minmax(value).values
    if value.values.amax() > value.values.amin():
        assert (scaled.amin(), scaled.amax()) == (0, 1)
    else:
        assert not scaled.any()
    moved = ifa.minmax(value._replace(values=value.values.double() * 4)).values
    torch.testing.assert_close(moved, scaled)


@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(1, 9)), min_size=1, max_size=4))
def test_a_scale_is_read_off_the_statistics(limits):
    import xarray as xr

    low, high = np.array(limits).T
    statistics = xr.Dataset(
        {
            # the quantile 0.5 of the maxima, and 0.9 of the minima, must not be taken
            "map_min": (("target", "quantile"), np.stack([low, low - 1], 1)),
            "map_max": (("target", "quantile"), np.stack([high + 1, high], 1)),
            "map_min_overall": ("quantile", [low.mean(), low.mean() - 1]),
            "map_max_overall": ("quantile", [high.mean() + 1, high.mean()]),
        },
        {"quantile": [0.5, 0.9], "target": np.arange(len(low))},
    )
    expected = {
        "all": (low.mean(), high.mean()),
        "target": (low, high),
        "widest": (low.min(), high.max()),
    }
    for over, pair in expected.items():
        scale = ifa.scale_from(statistics, over=over)
        np.testing.assert_array_equal(scale.low, pair[0])
        np.testing.assert_array_equal(scale.high, pair[1])
        rectified = ifa.scale_from(statistics, over=over, rectified=True)
        np.testing.assert_array_equal(rectified.low, np.zeros_like(pair[0]))
        np.testing.assert_array_equal(rectified.high, pair[1])


def test_every_scaling_has_a_row():
    names = {"minmax", "rescale", "scale_from", "unscale"}  # the last four tests, and RESCALINGS
    assert public_functions(scaling) == names


def law_of(name, **options):
    return partial(getattr(laws, name), **options)


RANKED = "strongest_are_kept_and_ties_go_to_the_lower"
COUNTED = (law_of("exactly_k_channels_are_kept"), law_of("a_ratio_of_one_keeps_all"))
UNTOUCHED = law_of("selecting_leaves_the_values")
LABELED = law_of("labels_are_kept")


def ignoring_ratio(rule, **options):
    return lambda values, ratio: rule(values, **options)


# Each rule as select(values, ratio=...), and the laws it is held to.
SELECTIONS = {
    "above": (
        ignoring_ratio(select.above, threshold=0.0),
        (
            UNTOUCHED,
            LABELED,
            # what is kept is a head of the ranking, however long
            law_of(RANKED),
        ),
    ),
    "every": (
        ignoring_ratio(select.every),
        (UNTOUCHED, LABELED, law_of("a_ratio_of_one_keeps_all"), law_of(RANKED)),
    ),
    "largest": (select.largest, (*COUNTED, UNTOUCHED, LABELED, law_of(RANKED))),
    "largest_absolute": (
        select.largest_absolute,
        (*COUNTED, UNTOUCHED, LABELED, law_of(RANKED, strength=torch.abs)),
    ),
    "only": (
        ignoring_ratio(select.only, index=0),
        # as ranked by index
        (UNTOUCHED, LABELED, law_of(RANKED, strength=torch.zeros_like)),
    ),
    "random": (partial(select.random, seed=5), (*COUNTED, UNTOUCHED, LABELED)),
    "smallest_absolute": (
        select.smallest_absolute,
        (
            UNTOUCHED,
            LABELED,
            law_of("a_selection_is_the_complement_of", other=select.largest_absolute),
        ),
    ),
    "strongest": (ignoring_ratio(select.strongest), (UNTOUCHED, LABELED, law_of(RANKED))),
}
SELECTION_PAIRS = [
    pytest.param(name, law, id=f"{name}-{law.func.__name__}")
    for name, (_, held) in SELECTIONS.items()
    for law in held
]


@pytest.mark.parametrize(("name", "law"), SELECTION_PAIRS)
def test_selection(name, law):
    law(SELECTIONS[name][0])


def test_every_selection_has_a_row():
    assert set(SELECTIONS) == set(select.__all__)


@given(strategies.importances())
def test_rules_without_a_ratio_keep_what_they_say(values):
    expected = values == values.amax(-1, keepdim=True)
    assert torch.equal(select.above(values, threshold=0.0), values > 0)
    assert (select.strongest(values).sum(-1) == 1).all()
    assert expected[select.strongest(values)].all()
    last = values.shape[-1] - 1
    assert select.only(values, index=last)[..., last].all()
    assert (select.only(values, index=last).sum(-1) == 1).all()


class Tapped(NamedTuple):
    """A network, one of its layers, and how it has to be tapped."""

    model: models.Net
    layer: str
    options: dict = {}  # noqa: RUF012 (never changed)


BOX = ifa.score.box(boxes=[[0, 0, 11, 6], [1, 0, 11, 7]], classes=[0, 1], threshold=0)
GRID = {"grid": ifa.tokens(prefix=1, grid=(2, 3))}
TAPS = {
    "pooled_linear_1": Tapped(models.pooled_linear(1), "conv1"),
    "pooled_linear_2": Tapped(models.pooled_linear(2), "relu2"),
    "pooled_linear_3": Tapped(models.pooled_linear(3), "conv2"),
    "inplace": Tapped(models.inplace(), "conv2"),
    "inplace_below": Tapped(models.inplace(), "conv1"),
    "reused_layer": Tapped(models.reused_layer(), "relu#2"),
    "tuple_output": Tapped(models.tuple_output(), "conv", {"output": 1}),
    "dict_output": Tapped(models.dict_output(), "body.conv"),
    "two_heads": Tapped(models.two_heads(), "trunk", {"output": "value"}),
    "two_heads_probability": Tapped(
        models.two_heads(), "trunk", {"output": "category", "score": ifa.score.probability}
    ),
    "detector": Tapped(models.detector(), "conv", {"score": BOX}),
    "regression": Tapped(models.regression(), "conv"),
    "batch_norm": Tapped(models.batch_norm(), "norm"),
    "batch_norm_below": Tapped(models.batch_norm(), "conv"),
    "small_vit": Tapped(models.small_vit(), "blocks.0", GRID),
    "small_vit_norm": Tapped(models.small_vit(), "blocks.1.norm1", GRID),
    "recurrent": Tapped(models.recurrent(), "gru", {"grid": ifa.channels_last()}),
    "image_and_age": Tapped(models.image_and_age(), "conv"),
    "siamese": Tapped(models.siamese(), "conv#2"),
    "masked_text": Tapped(models.masked_text(), "conv"),
}
NETWORKS = {name for name in models.__all__ if name != "inputs"}


@pytest.mark.parametrize(("name", "law"), pairs(TAPS, laws.TAP))
def test_tap(name, law):
    model, layer, options = TAPS[name]
    law(model, layer, models.inputs(model), examples=8, **options)


def test_every_network_is_tapped():
    tapped = {"_".join(c for c in name.split("_") if not c.isdigit()) for name in TAPS}
    assert tapped >= NETWORKS


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore::ifa.ZeroGradient")
@pytest.mark.parametrize("name", TAPS)
def test_every_layer_that_the_score_reads_can_be_tapped(name):
    model, _, options = TAPS[name]
    options = {**options, "grid": torch.nn.Identity()}  # as it is, whatever is tokens
    example = models.inputs(model)
    refused = []
    for layer in ifa.trace(model, example):
        try:
            ifa.tap(model, layer, example, **options)(example, 0 if name == "detector" else None)
        except ValueError as error:
            if "no gradient reaches the score" not in str(error):
                raise
            refused.append(layer)
            continue
        for law in laws.TAP:
            law(model, layer, example, examples=50, **options)
    assert len(refused) < len(ifa.trace(model, example))


def analysis(store, seed):
    """Analyze one of many networks, in several shards."""
    model = models.pooled_linear(space=1, seed=seed)
    inputs = models.inputs(model, 7)
    data = [(one, int(label)) for one, label in zip(inputs, model(inputs).argmax(1), strict=True)]
    kept = {"layer": ["conv1", "relu2"], "keep_samples": "full", "shard": 3}
    return ifa.analyze(model, data, store=store, progress=False, **kept)


@pytest.mark.parametrize("law", laws.STORE, ids=lambda law: law.__name__)
def test_store(law):
    law(analysis, examples=4)


def map_range(map):
    return float(map.min()), float(map.max())


def against_another(metric):
    """Compare a map with one made of its labels, which vary."""
    return lambda map, labels: metric(map, labels.double())


SHIFTING = laws.permuting_positions_changes_nothing
# Each metric of maps as metric(map, labels), with its options and the laws it must break.
MAP_METRICS = {
    "complexity": (
        lambda map, labels: evaluate.complexity(map),
        {"bounds": lambda map: (0.0, np.log(map.numel()))},
        (),
    ),
    "coverage": (
        lambda map, labels: evaluate.coverage(map, labels == 1),
        {"bounds": map_range, "degree": 1},
        (),
    ),
    "coverage-graded": (
        partial(evaluate.coverage, weights={0: 1.0, 2: 0.5}),
        {"bounds": lambda map: (0.5 * float(map.min()), float(map.max())), "degree": 1},
        (),
    ),
    "hit_rate": (
        partial(evaluate.hit_rate, weights=[-1.0, 1.0, 3.0]),
        {"bounds": lambda map: (-1.0, 3.0)},
        (),
    ),
    "hit_rate-unlisted": (
        partial(evaluate.hit_rate, weights={1: 3.0}, unlisted=-1.0),
        {"bounds": lambda map: (-1.0, 3.0)},
        (),
    ),
    "iou": (lambda map, labels: evaluate.iou(map, labels == 1, [0.2, 0.7]), {}, ()),
    "iou-quantile": (
        lambda map, labels: evaluate.iou(map, labels == 1, 0.8, of="quantile"),
        {},
        (),
    ),
    "pearson": (against_another(evaluate.pearson), {"bounds": lambda map: (-1.0, 1.0)}, ()),
    "pointing_game": (lambda map, labels: evaluate.pointing_game(map, labels == 1), {}, ()),
    "relevance_mass": (lambda map, labels: evaluate.relevance_mass(map, labels == 1), {}, ()),
    "relevance_rank": (lambda map, labels: evaluate.relevance_rank(map, labels == 1), {}, ()),
    "similarity": (
        lambda map, labels: evaluate.similarity(map.flatten(), labels.flatten()),
        {"bounds": lambda map: (-1.0, 1.0)},
        (SHIFTING,),
    ),
    "sparseness": (
        lambda map, labels: evaluate.sparseness(map),
        {"bounds": lambda map: (0.0, 1 - 1 / map.numel())},
        (),
    ),
    "spearman": (against_another(evaluate.spearman), {"bounds": lambda map: (-1.0, 1.0)}, ()),
    "ssim": (
        lambda map, labels: evaluate.ssim(
            map.flatten(), labels.flatten() * map.abs().amax(), window=2
        ),
        {"bounds": lambda map: (-1.0, 1.0)},
        (SHIFTING,),
    ),
    "target_specificity": (
        lambda map, labels: evaluate.target_specificity(torch.stack([map, labels.double()])),
        {"bounds": lambda map: (-1.0, 1.0)},
        (),
    ),
}
TAKES = {"a_map_metric_stays_in_its_bounds": "bounds"} | {
    "a_map_metric_does_not_depend_on_the_unit": "degree"
}


@pytest.mark.parametrize(("name", "law"), pairs(MAP_METRICS, laws.MAP_METRIC))
def test_map_metric(name, law):
    metric, options, exempt = MAP_METRICS[name]
    taken = {key: value for key, value in options.items() if key == TAKES.get(law.__name__)}
    if law in exempt:
        with pytest.raises(AssertionError):
            law(metric, **taken)
    else:
        law(metric, **taken)


def test_every_map_metric_has_a_row():
    functions = {name: getattr(evaluate, name) for name in evaluate.__all__}
    functions = {name: f for name, f in functions.items() if inspect.isfunction(f)}
    of_maps = {
        name
        for name, f in functions.items()
        if next(iter(inspect.signature(f).parameters)) in ("map", "maps")
    }
    assert {name.split("-")[0] for name in MAP_METRICS} == of_maps


def gradients_sensitivity(model, inputs, maps, target, chunk=None):
    """Look at gradients: the maps that the laws draw are not those of any method."""
    scorer = Scorer("laws", model, ifa.score.logit)
    return evaluate.sensitivity(
        lambda inputs, target: scorer.gradients(inputs, target)[0],
        inputs,
        target,
        draws=3,
        chunk=chunk,
    )


# Each metric that runs the network, with what of it is NaN for a map that says nothing, and the
# laws it must break.
METRICS = {
    "confidence": (lambda *a, **k: evaluate.confidence(*a, **k)[1:], ()),
    "confidence-hard": (
        lambda *a, **k: evaluate.confidence(*a, threshold=0.4, of="quantile", keep=False, **k)[1:],
        (),
    ),
    "deletion": (lambda *a, **k: evaluate.deletion(*a, steps=4, **k)[1:], ()),
    "insertion": (lambda *a, **k: evaluate.insertion(*a, steps=4, window=3, **k)[1:], ()),
    "retention": (lambda *a, **k: evaluate.retention(*a, fraction=(0.2, 0.5), **k)[1:], ()),
    "road": (lambda *a, **k: evaluate.road(*a, fraction=(0.3, 0.6), **k)[1:], ()),
    "infidelity": (partial(evaluate.infidelity, draws=3), ()),
    "faithfulness_correlation": (partial(evaluate.faithfulness_correlation, draws=4), ()),
    "sensitivity": (gradients_sensitivity, (laws.a_silent_map_has_no_value,)),
}


@pytest.mark.parametrize(("name", "law"), pairs(METRICS, laws.METRIC))
def test_metric(name, law):
    metric, exempt = METRICS[name]
    # each metric in another number of axes; all of them are in test_evaluate_metrics
    model = models.pooled_linear(1 + list(METRICS).index(name) % 3)
    if law in exempt:
        with pytest.raises(AssertionError):
            law(metric, model, examples=2)
    else:
        law(metric, model, examples=3)


def test_every_metric_has_a_row():
    """Other functions of a model take a layer or another's explanations, and have tests alone."""
    functions = {name: getattr(evaluate, name) for name in evaluate.__all__}
    functions = {name: f for name, f in functions.items() if inspect.isfunction(f)}
    first = {name: [*inspect.signature(f).parameters] for name, f in functions.items()}
    of_inputs = {name for name, names in first.items() if names[:3] == ["model", "inputs", "maps"]}
    assert {name.split("-")[0] for name in METRICS} == of_inputs | {"sensitivity"}
