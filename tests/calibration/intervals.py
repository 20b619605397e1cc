"""Rows of the intervals: how often each holds the truth."""

import re
from functools import cache, partial

import numpy as np
import torch
import xarray as xr
from numpy.random import Generator
from scipy.special import ndtr, ndtri

import ifa
from ifa import contest, diagnose, evaluate, population

from .cells import SAFE, Cell
from .runs import simulated_table
from .settings import LAWS, MEMBERS, Setting, mean_of, numbers, run_of, target_of, values

WIDE = "Errs on the safe side: "
# Exceptions of each interval: what is asked instead, and why.
SKEWED = (0.8, 0.98), "Of skewed importances few samples hide the tail that makes their mean."
BAND = SAFE, f"{WIDE}the limits hold for all values of the two distributions at once."
RANKS = SAFE, f"{WIDE}never less than the variance of normal numbers is taken."
AREA = SAFE, f"{WIDE}an area near 1, or of few samples, takes one of a few values only."
FISHER = SAFE, f"{WIDE}the wider of Fisher's interval and the jackknife's is taken."
NOTHING = None, ""

# laws and sizes of the mean of one channel; skewness at small n is what no interval mends
MEANS = [Setting(n, law, 1) for law in LAWS for n in (5, 10, 30, 100, 300)]
MEANS += [Setting(100, law, 1, clusters=True) for law in LAWS]
CORE_MEANS = {(10, "normal"), (30, "t3"), (30, "ReLU-like")}


def holds(low: float, high: float, truth: float) -> bool | None:
    """Whether an interval holds the truth; None where it is NaN."""
    return None if np.isnan(low) or np.isnan(high) else bool(low <= truth <= high)


def bootstrap(of: Setting, rng: Generator) -> bool | None:
    run = run_of(rng, of)
    low, high = (
        float(part[0, 0]) for part in population.bootstrap(run, seed=int(rng.integers(99)))
    )
    return holds(low, high, mean_of(of))


def stable(of: Setting, signal: float, rng: Generator) -> bool:
    """A selection of a quarter of the channels is more stable than the limit of noise."""
    means = signal * rng.standard_normal(of.channels)
    run = run_of(rng, of, values(rng, of) - mean_of(of) + means)
    select = partial(ifa.select.largest, ratio=0.25)
    found = population.stability(run, select, seed=int(rng.integers(99)))
    return bool(found["stability"][0] > found["limit"][0])


def pairs(rng: Generator, of: Setting, r: float) -> tuple[np.ndarray, float]:
    """Two numbers of each sample (sample, 2), and their true correlation."""
    z = numbers(rng, of, 2) @ np.linalg.cholesky([[1, r], [r, 1]]).T
    if of.law == "t3":  # elliptical, so that r is what it was
        return z / np.sqrt(rng.chisquare(3, (of.n, 1)) / 3), r
    truth = {
        "normal": r,
        "lognormal": np.expm1(r) / np.expm1(1),
        "ReLU-like": (np.sqrt(1 - r**2) + r * (np.pi - np.arccos(r)) - 1) / (np.pi - 1),
    }[of.law]
    return LAWS[of.law][0](z), float(truth)


def correlation(of: Setting, r: float, rng: Generator) -> bool | None:
    both, truth = pairs(rng, of, r)
    whose = np.arange(of.n) // MEMBERS if of.clusters else None
    found = evaluate.correlation_interval(*torch.from_numpy(both.T.copy()), cluster=whose)
    return holds(*map(float, found), truth)


def scores(rng: Generator, of: Setting, area: float) -> tuple[np.ndarray, np.ndarray]:
    """Values whose area under the curve is known, and which samples are positive."""
    positive = target_of(of) == 1
    return values(rng, of)[:, 0] + np.sqrt(2) * ndtri(area) * positive, positive


def auroc(of: Setting, area: float, rng: Generator) -> bool | None:
    found, positive = scores(rng, of, area)
    whose = np.arange(of.n) // MEMBERS if of.clusters else None
    ends = evaluate.auroc_interval(*map(torch.from_numpy, (found, positive)), cluster=whose)
    return holds(*map(float, ends), area)


def auroc_said(of: Setting, area: float, rng: Generator) -> bool | None:
    found, _ = scores(rng, of, area)
    run = run_of(rng, of._replace(listed=True), np.stack([-found, found])[..., None])
    report = evaluate.consistency_report(run)
    return holds(*(float(report[f"auroc_{end}"][0, 1]) for end in ("low", "high")), area)


def right_of(of: Setting, rng: Generator) -> xr.DataTree:
    """A run that is right in .9."""
    wrong, target = ndtr(numbers(rng, of, 1)[:, 0]) > 0.9, target_of(of)
    return run_of(rng, of, label=np.where(wrong, 1 - target, target))


def accuracy(of: Setting, rng: Generator) -> bool | None:
    found = evaluate.classification_report(right_of(of, rng))
    return holds(float(found["low"]), float(found["high"]), 0.9)


def consistency(of: Setting, r: float, rng: Generator) -> bool | None:
    both, truth = pairs(rng, of, r)
    found = evaluate.consistency_report(run_of(rng, of, both[:, :1], score=both[:, 1]))
    return holds(*(float(found[name][0]) for name in ("low", "high")), truth)


def contest_mean(of: Setting, rng: Generator) -> bool | None:
    """Of methods whose values are numbers of a law, or 0 and 1."""
    if of.law == "ReLU-like":  # stands for a hit: 0 or 1
        found, truth = (rng.random((2, 1, of.n)) < 0.9).astype(float), 0.9
    else:
        found, truth = values(rng, of._replace(channels=2)).T[:, None], mean_of(of)
    summary = contest.summary(simulated_table(found))
    return holds(*(float(summary[name][0, 0]) for name in ("low", "high")), truth)


def accuracy_said(of: Setting, rng: Generator) -> bool | None:
    """Read Wilson's interval from the words of a run's summary."""
    said = re.search(r"95 % interval ([\d.]+) … ([\d.]+)", population.summary(right_of(of, rng)))
    assert said
    return holds(float(said[1]) - 5e-4, float(said[2]) + 5e-4, 0.9)


def agreement(of: Setting, name: str, rng: Generator) -> bool | None:
    """Of the mean of all channels, or of the first."""
    found = diagnose.agreement(*(run_of(rng, of, name=letter) for letter in "ab"))
    return holds(*found[name].values.reshape(-1, 2)[0], 0.0)


def shift(of: Setting, name: str, rng: Generator) -> bool | None:
    """The second run is one standard deviation higher, and right as often: .9."""
    label = np.zeros(of.n, np.int64)
    runs = []
    for letter, more in (("a", 0.0), ("b", 1.0)):
        target = (ndtr(numbers(rng, of, 1)[:, 0]) > 0.9).astype(np.int64)
        every = {"label": label, "target": target if name.startswith("right") else label}
        runs.append(run_of(rng, of, values(rng, of) + more, name=letter, **every))
    found = diagnose.shift(*runs)[name].values.reshape(-1, 2)[0]
    return holds(*found, 0.9 if name.startswith("right") else 2 * ndtr(0.5) - 1)


def redundancy(of: Setting, rng: Generator) -> bool | None:
    """Of normal numbers, whose rank correlation is known."""
    z = numbers(rng, of, 2) @ np.linalg.cholesky([[1, 0.99], [0.99, 1]]).T
    found = diagnose.redundancy(run_of(rng, of, z))["correlation_interval"].values[0, 1]
    return holds(*found, 6 / np.pi * np.arcsin(0.99 / 2))


# ---- principal features of a linear network, whose performance is known

NOISE = {"accuracy": 0.3, "auroc": 0.45, "r": 0.5, "several r": 0.5}
OUTPUTS = {"accuracy": 2, "auroc": 2, "r": 1, "several r": 3}
WIDTH = 40


@cache
def network(metric: str) -> torch.nn.Module:
    net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.Linear(WIDTH, OUTPUTS[metric], False))
    rows = torch.linspace(1, 0.1, WIDTH).repeat(OUTPUTS[metric], 1)
    if OUTPUTS[metric] == 2:  # the other class says nothing
        rows[0] = 0
    net[1].weight.data.copy_(rows / rows[-1].norm())
    return net.eval()


def items(metric: str, n: int, rng: Generator) -> list[tuple[torch.Tensor, object]]:
    """Return inputs, and labels that are the network's output and noise."""
    inputs = torch.from_numpy(rng.standard_normal((n, WIDTH)).astype(np.float32))
    with torch.no_grad():
        outputs = network(metric)(inputs).double().numpy()
    width = 1 if OUTPUTS[metric] == 2 else OUTPUTS[metric]
    labels = outputs[:, -width:] + NOISE[metric] * rng.standard_normal((n, width))
    if OUTPUTS[metric] == 2:
        return list(zip(inputs, (labels[:, 0] > 0).astype(int).tolist(), strict=True))
    return list(zip(inputs, labels[:, 0].tolist() if width == 1 else labels, strict=True))


@cache
def statistics_of_network(metric: str) -> object:
    data = items(metric, 60, np.random.default_rng(1))
    task = "classification" if OUTPUTS[metric] == 2 else "regression"
    return ifa.analyze(network(metric), data, layer="0", task=task, progress=False)


@cache
def performance(metric: str, part: float = 1.0) -> float:
    """Of the network with so large a part of its weights' norm."""
    r = part / np.sqrt(1 + NOISE[metric] ** 2)
    if metric != "auroc":
        return float(1 - np.arccos(r) / np.pi if metric == "accuracy" else r)
    rng, n = np.random.default_rng(2), 1_000_000
    label = rng.standard_normal(n)
    score = torch.from_numpy(r * label + np.sqrt(1 - r**2) * rng.standard_normal(n))
    return float(evaluate.auroc(score, torch.from_numpy(label > 0)))


def principal(metric: str, data: object, statistics: object, **options: object) -> xr.Dataset:
    found = diagnose.principal_features(
        network(metric),
        "0",
        data,
        statistics,
        by="importance",
        metric="r" if metric == "several r" else metric,
        fill="zero",
        **options,
    )
    return found.isel(fill=0)


def kept(metric: str, n: int, rng: Generator) -> bool | None:
    """With every channel."""
    data = items(metric, n, rng)
    options = {"ratio": (1.0,), "seeds": range(2), "sizes": 1}
    found = principal(metric, data, statistics_of_network(metric), **options)
    return holds(*(float(found[name][0, 0]) for name in ("low", "high")), performance(metric))


def curved(metric: str, n: int, rng: Generator) -> bool | None:
    """With every channel, whose interval is that of the untouched network."""
    found = diagnose.feature_curve(
        network(metric),
        "0",
        items(metric, n, rng),
        statistics_of_network(metric),
        by="importance",
        metric=metric,
        fill="zero",
        ratio=(1.0,),
        seeds=(0,),
    ).isel(fill=0)
    pairs = [
        [float(found[name][0, 0]) for name in ("low", "high")],
        [float(found.attrs[name]) for name in ("reference_low", "reference_high")],
    ]
    answers = [holds(*pair, performance(metric)) for pair in pairs]
    return None if None in answers else all(answers)


CHOICE = {"ratio": (0.5,), "seeds": range(2), "sizes": 16, "tolerance": 0.05}


def weight_of(metric: str, channels: np.ndarray) -> float:
    """The norm of the weights of some channels."""
    weights = network(metric)[1].weight[-1].detach().double().numpy()
    return float(np.linalg.norm(weights[channels]))


def loses(metric: str, n: int, rng: Generator) -> bool:
    """Whether the chosen set loses more than the tolerance on other samples."""
    found = principal(metric, items(metric, n, rng), statistics_of_network(metric), **CHOICE)
    part = weight_of(metric, found["chosen"].values.astype(bool))
    return performance(metric) - performance(metric, part) > CHOICE["tolerance"]


def too_many(metric: str, n: int, rng: Generator) -> bool:
    """Whether a set of the ranking with fewer than the least count loses at most the tolerance."""
    statistics = statistics_of_network(metric)
    found = principal(metric, items(metric, n, rng), statistics, **CHOICE)
    least = int(found["least_count"])
    parts = [_part(metric, statistics, count) for count in range(1, least)]
    return any(performance(metric) - part <= CHOICE["tolerance"] for part in parts)


def _part(metric: str, statistics: xr.Dataset, count: int) -> float:
    """Performance of the first of the ranking."""
    order = np.argsort(-np.abs(statistics["0"]["importance"].values).max(0), kind="stable")
    return performance(metric, weight_of(metric, order[:count]))


def chosen(metric: str, n: int, rng: Generator) -> bool | None:
    """Of sets that the other folds choose, each as many of the ranking."""
    statistics = statistics_of_network(metric)
    found = principal(metric, items(metric, n, rng), statistics, **CHOICE)
    counts = found["chosen_count_fold"].values.astype(int)
    truth = np.mean([_part(metric, statistics, count) for count in counts])
    return holds(float(found["chosen_low"]), float(found["chosen_high"]), float(truth))


def _single(of: Setting) -> str:
    """Name a setting of one channel or two, which goes without saying of an interval."""
    return str(of).replace(", 1 channel", "").replace(", 2 channels", "").replace(", 2 targets", "")


def _cells() -> list[Cell]:
    cells = [
        Cell(
            "population.bootstrap",
            ("low", "high"),
            "interval",
            _single(of),
            partial(bootstrap, of),
            (of.n, of.law) in CORE_MEANS or (of.clusters and of.law == "normal"),
            2000,
            *(SKEWED if of.law in ("lognormal", "ReLU-like") and of.n <= 10 else NOTHING),
        )
        for of in MEANS
    ]
    settings = [Setting(30, law) for law in LAWS]
    settings += [Setting(30, blocks=True), Setting(100, clusters=True)]
    cells += [
        Cell(
            "population.stability",
            ("limit",),
            "alarm" if not signal else "power",
            f"{of}, means apart by {signal:g} sd",
            partial(stable, of, signal),
            draws=300,
        )
        for of in settings
        for signal in (0.0, 1.0)
    ]
    rows = [(Setting(n, law, 1), r) for law in LAWS for n in (10, 30, 100) for r in (0.0, 0.5, 0.9)]
    cells += [
        Cell(
            "evaluate.correlation_interval",
            ("low", "high"),
            "interval",
            f"{_single(of)}, r {r:g}",
            partial(correlation, of, r),
            of.law == "normal" and r == 0.5 and of.n <= 30,
            2000,
            *(FISHER if of.n == 10 or of.law == "lognormal" else NOTHING),
        )
        for of, r in rows
    ]
    rows += [(Setting(100, law, 1, clusters=True), 0.5) for law in LAWS]
    cells += [
        Cell(
            "evaluate.consistency_report",
            ("low", "high"),
            "interval",
            f"{_single(of)}, r {r:g}",
            partial(consistency, of, r),
            r == 0.5 and of.n == 30 and of.law in ("t3", "lognormal"),
            2000,
            *(FISHER if of.n == 10 or of.law == "lognormal" else NOTHING),
        )
        for of, r in rows
    ]
    means = [Setting(n, law, 1) for law in ("normal", "t3", "ReLU-like") for n in (10, 30, 100)]
    cells += [
        Cell(
            "contest.summary",
            ("low", "high"),
            "interval",
            _single(of).replace("ReLU-like", "0 and 1 of mean .9"),
            partial(contest_mean, of),
            core=of.n == 30 and of.law != "t3",
        )
        for of in means
    ]
    settings = [Setting(n, channels=2, targets=2) for n in (10, 30, 100)]
    settings.append(Setting(100, channels=2, targets=2, clusters=True))
    cells += [
        Cell(
            of,
            words,
            "interval",
            f"{_single(setting)}, accuracy .9",
            partial(draw, setting),
            core=setting.n == 30 and of != "population.summary",
        )
        for setting in settings
        for of, words, draw in (
            ("population.summary", ("intervals",), accuracy_said),
            ("evaluate.classification_report", ("low", "high"), accuracy),
        )
    ]
    settings = [Setting(n, channels=1, targets=2) for n in (10, 30, 100)]
    settings += [Setting(100, channels=1, targets=2, share=0.9)]
    settings += [Setting(100, channels=1, targets=2, clusters=True)]
    cells += [
        Cell(
            of,
            words,
            "interval",
            f"{_single(setting)}, area {area:g}",
            partial(draw, setting, area),
            setting.n == 30 and area == 0.95 and of == "evaluate.auroc_interval",
            2000,
            *(AREA if setting.n == 10 or setting.share or area == 0.95 else NOTHING),
        )
        for setting in settings
        for area in (0.5, 0.8, 0.95)
        for of, words, draw in (
            ("evaluate.auroc_interval", ("low", "high"), auroc),
            ("evaluate.consistency_report", ("auroc_low", "auroc_high"), auroc_said),
        )
    ]
    settings = [Setting(10), Setting(30), Setting(30, blocks=True), Setting(100, clusters=True)]
    settings += [Setting(30, law) for law in LAWS if law != "normal"]
    cells += [
        Cell(
            "diagnose.agreement",
            (name,),
            "interval",
            str(of),
            partial(agreement, of, name),
            core=name == "bias_interval" and (of.blocks or of.clusters),
        )
        for of in settings
        for name in ("bias_interval", "difference_interval")
    ]
    settings = [Setting(n, channels=2) for n in (30, 100)]
    settings.append(Setting(100, channels=2, clusters=True))
    cells += [
        Cell(
            "diagnose.shift",
            (name, *others),
            "interval",
            f"{_single(of)}, {said}",
            partial(shift, of, name),
            False,
            500,
            *(BAND if name == "ks_interval" else NOTHING),
        )
        for of in settings
        for name, others, said in (
            ("ks_interval", ("level_ks_interval", "score_ks_interval"), "D .383"),
            ("right_a_interval", ("right_b_interval",), "right at .9"),
        )
    ]
    cells += [
        Cell(
            "diagnose.redundancy",
            ("correlation_interval",),
            "interval",
            f"{_single(of)}, r .99",
            partial(redundancy, of),
            False,
            2000,
            *RANKS,
        )
        for of in settings
    ]
    cells += [
        Cell(
            "diagnose.principal_features",
            ("low", "high"),
            "interval",
            f"{metric}, n {n}",
            partial(kept, metric, n),
            core=n == 30 and metric == "accuracy",
            draws=500,
        )
        for metric in ("accuracy", "auroc", "r", "several r")
        for n in (30, 100)
    ]
    cells += [
        Cell(
            "diagnose.feature_curve",
            ("low", "high", "reference_low", "reference_high"),
            "interval",
            f"{metric}, n {n}",
            partial(curved, metric, n),
            draws=500,
        )
        for metric in ("accuracy", "auroc")
        for n in (30, 100)
    ]
    cells += [
        Cell(
            "diagnose.principal_features",
            ("chosen", "loss_bound", "candidate_bound"),
            "alarm",
            f"n {n}, the chosen set loses more than the tolerance, .05",
            partial(loses, "accuracy", n),
            draws=500,
        )
        for n in (100, 300)
    ]
    cells += [
        Cell(
            "diagnose.principal_features",
            ("least_count",),
            "alarm",
            f"n {n}, a smaller set loses at most the tolerance, .05",
            partial(too_many, "accuracy", n),
            draws=500,
        )
        for n in (100, 300)
    ]
    cells += [
        Cell(
            "diagnose.principal_features",
            ("chosen_low", "chosen_high"),
            "interval",
            f"accuracy, n {n}, sets of other folds",
            partial(chosen, "accuracy", n),
            draws=500,
        )
        for n in (100, 300)
    ]
    return cells


CELLS = _cells()
