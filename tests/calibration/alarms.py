"""Rows of the alarms: how often each is raised, where there is nothing and where there is."""

from functools import partial

import numpy as np
import xarray as xr
from numpy.random import Generator

from ifa import contest, diagnose

from .cells import ANYTHING, Cell
from .runs import simulated_table
from .settings import LAWS, MEMBERS, Setting, numbers, run_of, target_of, values

FEW = "Of 20 samples in 4 bins chance makes as much, somewhere in 40 targets and 20 channels."
LONG = "Tails may be as long as the upper quarter of a clean run shows, so 8 sd are not sure."
TESTED = ("alarm", "p_value", "p_adjusted")


def two(rng: Generator, of: Setting, other: Setting | None = None) -> tuple[object, object]:
    return run_of(rng, of, name="a"), run_of(rng, other or of, name="b")


def shift(of: Setting, rng: Generator) -> bool:
    found = diagnose.shift(*two(rng, of))
    return any(bool(found[f"{prefix}alarm"].any()) for prefix in ("", "level_", "score_", "right_"))


def shift_found(of: Setting, rng: Generator) -> bool:
    """Of one standard deviation, in three channels."""
    moved = values(rng, of)
    moved[:, :3] += 1.0
    found = diagnose.shift(run_of(rng, of, name="a"), run_of(rng, of, moved, name="b"))
    return bool(found["alarm"].values[:, :3].any())


def correctness(of: Setting, other: Setting, rate: float, rng: Generator) -> bool:
    """Of runs whose classes are predicted rightly in .95 and .6, or `rate` in the second run."""
    runs = []
    for name, one, second in (("a", of, 0.6), ("b", other, rate)):
        label = target_of(one)
        wrong = rng.random(one.n) > np.where(label == 0, 0.95, second)
        predicted = np.where(wrong, 1 - label, label)
        runs.append(run_of(rng, one, name=name, label=label, target=predicted))
    return bool(diagnose.shift(*runs)["right_alarm"])


def agreement(of: Setting, rng: Generator) -> bool:
    return bool(diagnose.agreement(*two(rng, of))["alarm"].any())


def agreement_found(of: Setting, rng: Generator) -> bool:
    """Half of the channels two standard deviations up, half down."""
    moved = values(rng, of)
    moved += np.where(np.arange(of.channels) % 2, 2.0, -2.0)
    found = diagnose.agreement(run_of(rng, of, name="a"), run_of(rng, of, moved, name="b"))
    return bool(found["alarm"].any())


def agree(of: Setting, apart: float, rng: Generator) -> bool:
    """Said to agree, where one channel is apart by so much of the channels' spread."""
    means = np.linspace(-1, 1, of.channels)
    first, second = (means + 0.1 * values(rng, of) for _ in range(2))
    second[:, 0] -= apart * means.std(ddof=1)
    found = diagnose.agreement(run_of(rng, of, first, name="a"), run_of(rng, of, second, name="b"))
    return bool(found["answer"][0] == "agree")


def agreement_paired(of: Setting, rng: Generator) -> bool:
    """The same samples through two checkpoints, .3 standard deviations apart."""
    first = values(rng, of)
    moved = first + 0.3 + 0.5 * rng.standard_normal(first.shape)
    found = diagnose.agreement(run_of(rng, of, first), run_of(rng, of, moved))
    return bool(found["alarm"].any())


def redundancy(of: Setting, rng: Generator) -> bool:
    """Pairs whose rank correlation is just the threshold, .95, in any law."""
    common = numbers(rng, of, of.channels // 2).repeat(2, 1)
    within = 2 * np.sin(np.pi * 0.95 / 6)  # of normal numbers of that rank correlation
    z = np.sqrt(within) * common + np.sqrt(1 - within) * numbers(rng, of, of.channels)
    shape = (of.targets, of.n, of.channels) if of.listed else (of.n, of.channels)
    run = run_of(rng, of, np.broadcast_to(LAWS[of.law][0](z), shape))
    return bool(diagnose.redundancy(run, threshold=0.95)["alarm"].any())


def redundancy_found(of: Setting, rng: Generator) -> bool:
    found = values(rng, of)
    found[:, 1] = found[:, 0] + 0.05 * rng.standard_normal(of.n)
    return bool(diagnose.redundancy(run_of(rng, of, found))["alarm"].values[0, 1])


def redundancy_contaminated(of: Setting, rng: Generator) -> bool:
    """Pairs that agree but for 3 samples of 100, and so have a rank correlation of about .95."""
    first = numbers(rng, of, of.channels // 2)
    second = first + 0.2 * numbers(rng, of, of.channels // 2)
    strange = rng.random(first.shape) < 0.03
    second = np.where(strange, numbers(rng, of, of.channels // 2), second)
    found = np.concatenate([first, second], axis=1)
    return bool(diagnose.redundancy(run_of(rng, of, found))["alarm"].any())


def nuisance_of(rng: Generator, of: Setting) -> np.ndarray:
    units = -(-of.n // MEMBERS) if of.clusters else of.n
    drawn = rng.permutation(np.arange(units) % 2)
    return drawn.repeat(MEMBERS)[: of.n] if of.clusters else drawn


def confounders(of: Setting, name: str, rng: Generator) -> bool:
    seed = int(rng.integers(1000))
    return bool(diagnose.confounders(run_of(rng, of), nuisance_of(rng, of), seed=seed)[name].any())


def confounders_found(of: Setting, effect: float, name: str, rng: Generator) -> bool:
    """One channel of the first target tells the nuisance."""
    nuisance, found = nuisance_of(rng, of), values(rng, of)
    own = np.arange(of.n) % of.targets == 0
    found[own, 0] += effect * (nuisance[own] * 2.0 - 1) + 3
    result = diagnose.confounders(run_of(rng, of, found), nuisance, seed=int(rng.integers(1000)))
    return bool(result[name].values[0].any())


def outliers(of: Setting, method: str, rng: Generator) -> bool:
    return bool(diagnose.outliers(run_of(rng, of), method=method)["alarm"].any())


def outliers_found(of: Setting, size: float, rng: Generator) -> bool:
    """One sample that lies apart in every channel."""
    found = values(rng, of)
    found[0] += size * found.std(0)
    result = diagnose.outliers(run_of(rng, of, found))
    return bool(result["alarm"].values[result["position"].values == 0].any())


def contested(
    methods: int, of: Setting, better: float, rng: Generator, control: str = ""
) -> xr.Dataset:
    """Methods that share what is hard in a sample; the first is better by standard deviations."""
    table = values(rng, of._replace(channels=methods)) + numbers(rng, of, 1)
    table[:, 0] += better
    made = simulated_table(table.T[:, None])
    if control:
        made = made.assign_coords(method=[*made["method"].values[:-1], control])
    whose = np.arange(of.n) // MEMBERS if of.clusters and of.given else None
    return contest.summary(made, cluster=whose)


def worse(methods: int, of: Setting, rng: Generator) -> bool:
    """Of equal methods one is said to be worse than the best."""
    found = contested(methods, of, 0.0, rng)
    return bool((~(found["best"] | found["tied"] | found["unknown"])).any())


def worse_found(of: Setting, rng: Generator) -> bool:
    """The last of five is said to be worse than the first, which is better."""
    found = contested(5, of, 1.0, rng)
    return not bool((found["best"] | found["tied"] | found["unknown"]).values[-1, 0])


def beats_noise(of: Setting, better: float, rng: Generator) -> bool:
    """A method is shown to beat noise."""
    return bool(contested(5, of, better, rng, "noise")["p_noise"].min() <= 0.05)


def ranks_apart(methods: int, of: Setting, rng: Generator) -> bool:
    """Of equal methods two are told apart by their mean ranks."""
    table = values(rng, of._replace(channels=methods)) + numbers(rng, of, 1)
    whose = np.arange(of.n) // MEMBERS if of.clusters else None
    made = simulated_table(table.T[:, None])
    found = contest.ranks(made, made["metric"].values[0], cluster=whose)
    return not bool(found["group"].values[0].all())


def _shift() -> list[Cell]:
    settings = [Setting(60, law) for law in LAWS]
    settings += [
        Setting(8, channels=1),
        Setting(16, channels=1),
        Setting(60, blocks=True),
        Setting(100, clusters=True),
        Setting(100, channels=4, clusters=True),
        Setting(100, clusters=True, given=False),
        Setting(200, targets=10),
        Setting(200, share=0.9),
        Setting(60, channels=1000),
    ]
    prefixes = ("", "level_", "score_", "right_")
    names = tuple(prefix + name for prefix in prefixes for name in TESTED)
    cells = [
        Cell(
            "diagnose.shift",
            names,
            "alarm",
            str(of),
            partial(shift, of),
            asked=None if of.given else ANYTHING,
            core=of
            in (Setting(60), Setting(8, channels=1), Setting(100, channels=4, clusters=True)),
            draws=300 if of.channels == 1000 else 1000,
        )
        for of in settings
    ]
    cells.append(
        Cell(
            "diagnose.shift",
            TESTED,
            "power",
            f"{Setting(60)}, 1 sd in 3",
            partial(shift_found, Setting(60)),
            core=True,
            draws=1000,
        )
    )
    names = tuple(f"right_{name}" for name in TESTED)
    even = Setting(100, channels=2, targets=2)
    odd = even._replace(share=0.9)
    said = "classes right at .95 and .6"
    for setting, other, kind, rate in (
        (said, even, "alarm", 0.6),
        (f"{said}, half and half, then 9 to 1", odd, "alarm", 0.6),
        (f"{said}, then .95 and .2", even, "power", 0.2),
    ):
        draw = partial(correctness, even, other, rate)
        core = other is odd
        cells.append(Cell("diagnose.shift", names, kind, setting, draw, core=core))
    return cells


def _agreement() -> list[Cell]:
    settings = [Setting(n, law) for law in LAWS for n in (10, 30, 100)]
    settings += [
        Setting(30, targets=10),
        Setting(30, blocks=True),
        Setting(100, clusters=True),
        Setting(100, clusters=True, given=False),
        Setting(200, share=0.9),
        Setting(30, channels=1000),
    ]
    core = {Setting(30, blocks=True), Setting(100, clusters=True)}
    names = (*TESTED, "bias_p_value", *(f"channel_{name}" for name in TESTED))
    cells = [
        Cell(
            "diagnose.agreement",
            names,
            "alarm",
            str(of),
            partial(agreement, of),
            asked=None if of.given else ANYTHING,
            core=of in core,
        )
        for of in settings
    ]
    planted = [
        (f"{Setting(30)}, ±2 sd in halves of them", partial(agreement_found, Setting(30))),
        (f"{Setting(60)}, the same samples .3 sd apart", partial(agreement_paired, Setting(60))),
    ]
    cells += [
        Cell("diagnose.agreement", names, "power", said, draw, core=True) for said, draw in planted
    ]
    names = ("equivalence_p_value", "equivalence_p_adjusted")
    cells += [
        Cell("diagnose.agreement", names, kind, f"{of}, {said}", partial(agree, of, apart), core)
        for of, apart, kind, said, core in (
            (Setting(30), 0.205, "alarm", "said to agree, one channel beyond the margin", True),
            (Setting(100), 0.0, "power", "said to agree, the same truth", False),
        )
    ]
    return cells


def _redundancy() -> list[Cell]:
    settings = [Setting(60, law) for law in LAWS]
    settings += [Setting(60, targets=n, listed=True) for n in (2, 10)]
    settings += [Setting(100, clusters=True), Setting(100, clusters=True, given=False)]
    cells = [
        Cell(
            "diagnose.redundancy",
            TESTED,
            "alarm",
            f"{of}, at the threshold",
            partial(redundancy, of),
            asked=None if of.given else ANYTHING,
            core=of.law == "t3" or of.targets == 10 or (of.clusters and of.given),
        )
        for of in settings
    ]
    of = Setting(200)
    draw = partial(redundancy_contaminated, of)
    said = f"{of}, pairs that agree but for 3 %, r .95"
    cells.append(Cell("diagnose.redundancy", TESTED, "alarm", said, draw, draws=1000))
    few = "A correlation of 1 is no alarm below some 100 samples: the price of holding where a few "
    for of, asked in ((Setting(60), ANYTHING), (Setting(200), None)):
        why = f"{few}samples hide that two channels differ." if asked else ""
        draw = partial(redundancy_found, of)
        cells.append(
            Cell(
                "diagnose.redundancy",
                TESTED,
                "power",
                f"{of}, a copy",
                draw,
                core=not asked,
                asked=asked,
                why=why,
            )
        )
    return cells


def _confounders() -> list[Cell]:
    cells = []
    settings = [Setting(60, law) for law in LAWS]
    settings += [
        Setting(60, blocks=True),
        Setting(100, clusters=True),
        Setting(100, clusters=True, given=False),
        Setting(200, targets=10),
        Setting(60, channels=1000),
    ]
    core = {Setting(100, clusters=True)}
    for prefix in ("", "probe_"):
        names = tuple(prefix + one for one in TESTED)
        for of in settings:
            draw = partial(confounders, of, f"{prefix}alarm")
            cells.append(
                Cell(
                    "diagnose.confounders",
                    names,
                    "alarm",
                    str(of),
                    draw,
                    asked=None if of.given else ANYTHING,
                    core=of in core,
                    draws=300 if of.channels == 1000 else 1000,
                )
            )
        many = Setting(40 * 20, targets=40)
        for of, effect in ((Setting(60), 1.5), (many, 9.0), (many._replace(n=40 * 40), 9.0)):
            few = of == many and prefix == ""
            cells.append(
                Cell(
                    "diagnose.confounders",
                    names,
                    "power",
                    f"{of}, {effect:g} sd in one",
                    partial(confounders_found, of, effect, f"{prefix}alarm"),
                    core=of.targets == 1 and prefix == "",
                    draws=100,
                    asked=ANYTHING if few else None,
                    why=FEW if few else "",
                )
            )
    return cells


def _outliers() -> list[Cell]:
    settings = [Setting(60, law) for law in LAWS]
    settings += [
        Setting(60, blocks=True),
        Setting(100, clusters=True),
        Setting(200, share=0.9),
        Setting(60, "ReLU-like", blocks=True),
    ]
    cells = [
        Cell(
            "diagnose.outliers",
            TESTED,
            "alarm",
            str(of) + (", forest" if method == "forest" else ""),
            partial(outliers, of, method),
            core=of.law in ("normal", "t3") and of == Setting(60, of.law) and method != "forest",
            draws=500,
        )
        for of in settings
        for method in ("covariance", "forest")
        if method == "covariance" or of == Setting(60)
    ]
    of = Setting(200, "ReLU-like", blocks=True)
    for size in (8.0, 128.0):
        draw = partial(outliers_found, of, size)
        cells.append(
            Cell(
                "diagnose.outliers",
                TESTED,
                "power",
                f"{of}, one at {size:g} sd",
                draw,
                core=size == 8,
                draws=300,
                asked=(0.3, 1.0) if size == 8 else None,
                why=LONG if size == 8 else "",
            )
        )
    return cells


def _contest() -> list[Cell]:
    words, settings = ("best", "tied", "p"), [(count, Setting(30)) for count in (2, 5, 10, 15)]
    settings += [(2, Setting(1)), (2, Setting(3)), (5, Setting(10)), (5, Setting(100))]
    settings += [(5, Setting(30, law)) for law in LAWS if law != "normal"]
    settings += [(5, Setting(100, clusters=True)), (5, Setting(100, clusters=True, given=False))]
    cells = [
        Cell(
            "contest.summary",
            words,
            "alarm",
            f"{of}, {count} equal methods",
            partial(worse, count, of),
            core=(of == Setting(30) and count in (5, 15)) or of == Setting(100, clusters=True),
            asked=None if of.given else ANYTHING,
            draws=1000,
        )
        for count, of in settings
    ]
    of = Setting(30)
    for better, kind in ((0.0, "alarm"), (1.0, "power")):
        said = f"{of}, no better method" if kind == "alarm" else f"{of}, one better by 1 sd"
        draw = partial(beats_noise, of, better)
        cells.append(Cell("contest.summary", ("p_noise",), kind, said, draw, core=True, draws=1000))
    for count, where in ((2, of), (10, of), (10, Setting(100, clusters=True))):
        draw = partial(ranks_apart, count, where)
        said = f"{where}, {count} equal methods"
        cells.append(Cell("contest.ranks", ("p",), "alarm", said, draw, core=count > 2, draws=1000))
    said = f"{of}, 5 methods, one better by 1 sd"
    draw = partial(worse_found, of)
    cells.append(Cell("contest.summary", words, "power", said, draw, core=True, draws=1000))
    return cells


CELLS = [
    *_shift(),
    *_agreement(),
    *_redundancy(),
    *_confounders(),
    *_outliers(),
    *_contest(),
]
