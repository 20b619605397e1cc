"""What work is done, counted: passes through a network, whichever machine and however busy."""

from functools import partial

import numpy as np
import pytest
import torch
from bench.counts import drawn, passes, passes_of, passes_of_images

import ifa
from ifa import contest, evaluate
from ifa.testing import models

MODEL = models.pooled_linear(1)
COUNT = 30
INPUTS = models.inputs(MODEL, COUNT)
DATA = [(x, 0, f"s{n}") for n, x in enumerate(INPUTS)]
METRICS = {
    "deletion": partial(evaluate.deletion, steps=4),
    "insertion": partial(evaluate.insertion, steps=4),
    "confidence": evaluate.confidence,
    "faithfulness_correlation": partial(evaluate.faithfulness_correlation, draws=10),
    "infidelity": partial(evaluate.infidelity, draws=5),
    "road": partial(evaluate.road, fraction=(0.3, 0.6)),
}
# of each metric: passes of a sample that no map changes, and those of each method
PASSES = {
    "deletion": (2, 3),
    "insertion": (2, 3),
    "confidence": (1, 1),
    "faithfulness_correlation": (11, 0),
    "infidelity": (6, 0),
    "road": (1, 4),
}


def methods(count):
    return {f"m{n}": contest.with_model(partial(drawn, seed=n)) for n in range(count)}


def counted(metrics, count):
    return passes_of(MODEL, "conv1", INPUTS, count, metrics)


@pytest.mark.parametrize("name", METRICS)
def test_what_no_map_changes_is_computed_once_for_all_methods(name):
    fixed, each = PASSES[name]
    assert [counted({name: METRICS[name]}, count) for count in (1, 4)] == [
        fixed + each,
        fixed + 4 * each,
    ]


def test_metrics_share_the_clean_score_and_insertions_ends_are_deletions():
    each = sum(one for _, one in PASSES.values())
    assert counted(METRICS, 3) == 2 + 10 + 5 + 3 * each


def test_the_default_metrics_take_815_passes_of_17_methods():
    """3 332 when each metric of each method ran its own (F-P2)."""
    assert passes_of_images(17, contest.default_metrics()) == 815


def test_explaining_anew_is_done_once_for_each_noisy_input_and_for_one_random_network():
    explained = []

    def gradcam(model, inputs, target):
        explained.append(len(inputs))
        return ifa.explain(model, inputs, target, layer="conv1")

    metrics = contest.default_metrics(slow=True)
    metrics = {name: metrics[name] for name in ("sensitivity", "randomization")}
    metrics["sensitivity"] = partial(evaluate.sensitivity, draws=4)
    contest.table(MODEL, DATA, {"gradcam": gradcam}, metrics, progress=False)
    assert sum(explained) == (1 + 4 + 1) * COUNT


def test_no_number_depends_on_what_is_shared():
    """Also where the same metric stands there with other options, or asks of other inputs."""

    @contest.metric(takes="maps")
    def brighter(model, inputs, maps, target):
        return evaluate.deletion(model, inputs + 1, maps, target, steps=4)

    metrics = METRICS | {
        "brighter": brighter,
        "to one": partial(evaluate.deletion, steps=4, baseline=1.0),
        "to one in": partial(evaluate.insertion, steps=4, baseline=1.0),
        "logit": partial(evaluate.insertion, steps=4, score=ifa.score.logit),
        "other sets": partial(evaluate.faithfulness_correlation, draws=10, seed=1),
        "fewer": partial(evaluate.faithfulness_correlation, draws=10, size=2),
        "louder": partial(evaluate.infidelity, draws=5, stdev=0.5),
    }
    found = contest.table(MODEL, DATA, methods(3), metrics, progress=False)
    target = MODEL(INPUTS).argmax(1)
    for number in range(3):
        maps = drawn(INPUTS, target, number)
        for name, metric in metrics.items():
            value = metric(MODEL, INPUTS, maps, target)
            fields = value._asdict() if hasattr(value, "_asdict") else {"": value}
            for field, one in fields.items():
                if one.shape == (COUNT,):
                    column = f"{name}.{field}" if field not in ("auc", "combined", "") else name
                    table = found["value"].sel({"method": f"m{number}", "metric": column})
                    np.testing.assert_array_equal(table, one, err_msg=column)


def test_the_table_says_of_a_random_network_what_randomization_does():
    metrics = contest.default_metrics(slow=True)
    metrics = {name: metrics[name] for name in ("sensitivity", "randomization")}
    explain = partial(ifa.explain, layer="conv1", rectify=False)
    found = contest.table(MODEL, DATA, {"a": explain, "b": explain}, metrics, progress=False)
    target = MODEL(INPUTS).argmax(1)
    want = evaluate.randomization(MODEL, explain, INPUTS, target).spearman[-1]
    changes = evaluate.sensitivity(partial(explain, MODEL), INPUTS, target)
    for row in found["value"].values:
        np.testing.assert_array_equal(row, torch.stack([*changes, want]))


def test_maps_that_are_known_are_not_asked_for_again():
    def attribution(inputs, target):
        return inputs**2

    target = torch.zeros(COUNT, dtype=torch.int64)
    want = evaluate.sensitivity(attribution, INPUTS, target)
    known = evaluate.sensitivity(attribution, INPUTS, target, maps=INPUTS**2)
    assert torch.equal(known.max, want.max)
    with pytest.raises(ValueError, match=r"expected maps with the axes \(30,\) first"):
        evaluate.sensitivity(attribution, INPUTS, target, maps=INPUTS[:3])


@pytest.mark.parametrize("targets", ["predicted", [0, 2]])
def test_a_population_passes_the_network_once_however_many_targets(targets):
    seen = []
    for count in (10, 25):
        with passes(MODEL.conv1) as found:
            ifa.analyze(MODEL, DATA[:count], layer="conv1", targets=targets, batch_size=5,
                        progress=False)  # fmt: skip
        seen.append(found.examples)
    # what a run costs whatever its length, such as tracing, is the same
    assert seen[1] - seen[0] == 15
