"""The refinement pipeline: each output against a plain re-implementation; each mended defect."""

from collections import deque
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

import ifa
from ifa.refine import pipeline

SIZES = {1: (41,), 2: (17, 22), 3: (6, 8, 7)}
GRIDS = {1: (7,), 2: (4, 5), 3: (3, 4, 2)}


def drawn(space, seed=0, channels=3):
    """Draw an image, a coarse map and a smooth fine one, signed."""
    rng = np.random.default_rng(seed)
    size = SIZES[space]
    image = rng.random((channels, *size))
    low = rng.standard_normal(GRIDS[space])
    high = plain_blur(rng.standard_normal(size), [5] * space)
    return tuple(map(torch.from_numpy, (image, low, high)))


# ---- the pipeline again, position by position, in float64


def fold(index, extent):
    """Mirror an index about the borders."""
    index %= 2 * extent
    return index if index < extent else 2 * extent - 1 - index


def plain_blur(values, window):
    result = np.zeros(values.shape)
    ranges = [range(-(w // 2), w // 2 + 1) for w in window]
    for place in np.ndindex(values.shape):
        taken = [
            values[tuple(map(fold, np.add(place, by), values.shape))] for by in product(*ranges)
        ]
        result[place] = sum(taken) / len(taken)
    return result


def plain_sobel(values):
    result = np.zeros(values.shape)
    for place in np.ndindex(values.shape):
        for axis in range(values.ndim):
            slope = 0.0
            for by in product((-1, 0, 1), repeat=values.ndim):
                smooth = np.prod([(1, 2, 1)[b + 1] / 4 for a, b in enumerate(by) if a != axis])
                slope += (
                    by[axis] * smooth * values[tuple(map(fold, np.add(place, by), values.shape))]
                )
            result[place] += slope**2
    return np.sqrt(result / values.ndim)


def plain_n(values):
    low, high = values.min(), values.max()
    return np.zeros(values.shape) if low == high else (values - low) / (high - low)


def plain_resize(values, size):
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[values.ndim]
    return interpolate(torch.from_numpy(values)[None, None], size, mode=mode)[0, 0].numpy()


def plain_flood(values, low, high, seeds):
    result = np.zeros(values.shape, bool)
    queue = deque(seed for seed in seeds if low <= values[seed] <= high)
    while queue:
        place = queue.popleft()
        if result[place]:
            continue
        result[place] = True
        for axis, by in product(range(values.ndim), (-1, 1)):
            other = list(place)
            other[axis] += by
            inside = 0 <= other[axis] < values.shape[axis]
            if inside and low <= values[tuple(other)] <= high:
                queue.append(tuple(other))
    return result


def plain_fill(mask, size):
    result, seen = mask.copy(), mask.copy()
    for place in map(tuple, np.argwhere(~mask)):
        if not seen[place]:
            hole = plain_flood((~mask).astype(float), 1, 1, [place])
            seen |= hole
            result |= hole if hole.sum() < size else False
    return result


def plain_maxima(values):
    """Find plateaus that no neighbour exceeds, by flooding each."""
    result = np.zeros(values.shape, bool)
    for start in np.ndindex(values.shape):
        plateau, queue, beaten = set(), [start], False
        while queue:
            place = queue.pop()
            plateau.add(place)
            for by in product((-1, 0, 1), repeat=values.ndim):
                other = tuple(np.add(place, by))
                if any(not 0 <= o < n for o, n in zip(other, values.shape, strict=True)):
                    continue
                beaten |= values[other] > values[start]
                if values[other] == values[start] and other not in plateau:
                    queue.append(other)
        result[start] = not beaten
    return result


def plain_local(low, size, areas):
    maxima = plain_maxima(low)
    limit = (low[maxima].min() + low[maxima].max()) / 2
    kept = maxima & (low >= limit)
    cells = [
        ((np.arange(n) + 0.5) * g / n).astype(int) for n, g in zip(size, low.shape, strict=True)
    ]
    large = kept[np.ix_(*cells)]
    if areas == "large":
        return np.argwhere(large)
    from skimage.measure import label

    centers = []
    parts = label(large, connectivity=large.ndim)
    for part in range(1, parts.max() + 1):
        members = np.argwhere(parts == part)
        far = [np.square(one - members.mean(0)).sum() for one in members]
        centers.append(tuple(members[int(np.argmin(far))]))
    return np.array(sorted(centers))


def plain_pipeline(image, low, high, **options):
    """Compute the eleven outputs as methods.md §2.15 says, with its defects mended."""
    image, low, high = (one.numpy() for one in (image, low, high))
    size, space = image.shape[1:], low.ndim
    faithful = options.get("faithful", False)
    boxes = (
        [5] * space if faithful else [max(3, 2 * round((n * 5 / 224 - 1) / 2) + 1) for n in size]
    )
    boxes = [options["window"]] * space if "window" in options else boxes
    blurred = plain_blur(plain_n(high), boxes)
    edges = plain_n(plain_sobel(blurred))
    large = plain_resize(low, size)
    roi = large > np.percentile(large, 100 * (1 - options.get("region", 0.15)))
    lower, upper = np.percentile(edges[roi], (25, 75))
    if options.get("scope", "global") == "global":
        count = options.get("count") or round(np.prod(size) ** (0.5 / space))
        ranked = sorted(np.ndindex(size), key=lambda place: (-large[place], place))
        points = np.array(ranked[:count])
    else:
        points = plain_local(low, size, options.get("areas", "small"))
    seeds = [tuple(point) for point in points]
    segmented = plain_flood(edges, lower, upper, seeds)
    strong = (edges >= upper) & roi
    hole = 256 if faithful else max(1, round(np.prod(size) * 256 / 224**2))
    hole = options.get("hole", hole)
    full = plain_fill(segmented | strong, hole)
    shown = large
    if faithful:
        shown = np.round(plain_resize(np.floor(255 * plain_n(low)), size))
    a = full.astype(float)  # not constant, or one everywhere
    b, alpha = plain_n(shown), options.get("alpha", 0.5)
    merged = a * b if options.get("how") == "multiply" else alpha * a + (1 - alpha) * b
    if "threshold" in options:
        kept = plain_n(merged) > options["threshold"]
    else:
        count = int(np.ceil(round(options.get("fraction", 0.15) * merged.size, 9)))
        ranked = sorted(np.ndindex(size), key=lambda place: (-merged[place], place))[:count]
        kept = np.zeros(size, bool)
        kept[tuple(np.array(ranked).T)] = True
    outputs = (blurred, low, large, edges, roi, np.array([lower, upper]), points, segmented)
    return (*outputs, full, merged, image * kept)


NAMES = ifa.refine.Refined._fields[:11]
OPTIONS = {
    "default": {},
    "other shares": {"region": 0.4, "alpha": 0.2, "fraction": 0.35, "count": 4},
    "multiply, threshold": {"how": "multiply", "threshold": 0.6},
    "local, small": {"scope": "local"},
    "local, large": {"scope": "local", "areas": "large"},
    "faithful": {"faithful": True},
    "faithful, small holes": {"faithful": True, "hole": 9, "window": 3},
}


@pytest.mark.parametrize("space", [1, 2, 3])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_of_the_eleven_outputs_is_what_a_plain_loop_computes(space, name):
    options = OPTIONS[name]
    image, low, high = drawn(space, seed=space)
    refined = pipeline(image, low, high, **options)
    for field, expected in zip(NAMES, plain_pipeline(image, low, high, **options), strict=True):
        got = getattr(refined, field).numpy()
        assert got.shape == expected.shape, field
        if expected.dtype.kind in "bi":
            assert (got == expected).all(), field
        else:
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-13, err_msg=field)


@pytest.mark.deep
@pytest.mark.parametrize("name", OPTIONS)
@given(seed=st.integers(0, 2**31))
def test_the_eleven_outputs_of_many_maps(name, seed):
    image, low, high = drawn(2, seed=seed)
    refined = pipeline(image, low, high, **OPTIONS[name])
    expected = plain_pipeline(image, low, high, **OPTIONS[name])
    for got, wanted in zip(refined, expected, strict=False):
        np.testing.assert_allclose(got.double(), wanted.astype(float), rtol=1e-9, atol=1e-12)


def test_names_are_the_seeds():
    first = ("blurred", "low", "low_resized", "edges", "roi", "bounds", "focal_points")
    assert (*first, "segmented", "full_segment", "merged", "result") == NAMES


def test_sizes_at_224_are_the_seeds():
    """Relative sizes are those of the public code at the size that it was made for."""
    image, low, high = torch.rand(3, 224, 224), torch.rand(14, 14), torch.rand(224, 224)
    own, seeds = (pipeline(image, low, high, faithful=faithful) for faithful in (False, True))
    for name in ("blurred", "edges", "bounds", "roi", "segmented", "full_segment", "focal_points"):
        assert torch.equal(getattr(own, name), getattr(seeds, name)), name
    assert len(own.focal_points) == 15
    # 256 greys move what is merged by less than two of them
    assert 0 < (own.merged - seeds.merged).abs().max() < 2 / 255


def test_arguments_are_left_and_dtypes_follow():
    image, low, high = (one.float() for one in drawn(2))
    before = [one.clone() for one in (image, low, high)]
    refined = pipeline(image, low, high)
    assert all(torch.equal(a, b) for a, b in zip(before, (image, low, high), strict=True))
    assert refined.result.dtype == image.dtype
    assert refined.merged.dtype == torch.float64
    assert pipeline((255 * image).byte(), low, high).result.dtype == torch.uint8


# ---- what was mended, by number


def test_d3_2_exactly_the_share_is_kept():
    """The limit was found on the mask as it is and compared with the normalized one."""
    image = torch.ones(1, 10, 10)
    narrow = 0.1 + 0.4 * torch.rand(10, 10, dtype=torch.float64)
    assert ifa.refine.cropped(image, narrow, fraction=0.15).count_nonzero() == 15
    assert ifa.refine.cropped(image, 7 * narrow, fraction=0.15).count_nonzero() == 15
    # and of a mask with ties no more than asked for
    assert ifa.refine.cropped(image, torch.ones(10, 10), fraction=0.15).count_nonzero() == 15


def test_d3_3_a_blank_segment_leaves_the_map_resized_and_in_0_to_1():
    low = torch.tensor([[1.0, 5.0], [2.0, 3.0]])
    merged = ifa.refine.blended(torch.zeros(6, 8, dtype=torch.bool), low)
    assert merged.shape == (6, 8)
    assert (merged.min(), merged.max()) == (0, 1)
    segment = torch.zeros(6, 8, dtype=torch.bool)
    segment[2, 3] = True
    assert torch.equal(ifa.refine.blended(segment, -low), segment.double())
    assert ifa.refine.blended(segment & False, -low).count_nonzero() == 0


def test_d3_4_a_bound_of_zero_is_a_bound():
    flat = torch.tensor([0.0, 0.0, 0.5, 0.9, 0.0])
    seed = torch.tensor([[0]])
    found = ifa.refine.grown(flat, seed, low=0.0, high=0.0)
    assert found.tolist() == [True, True, False, False, False]


def test_d3_4_no_seed_gives_an_empty_segment_and_one_seed_needs_no_list():
    flat = torch.tensor([0.1, 0.2, 0.3])
    for none in (torch.empty(0, 1, dtype=torch.long), torch.empty(0, dtype=torch.long)):
        assert not ifa.refine.grown(flat, none, low=0.0, high=1.0).any()
    assert ifa.refine.grown(flat, torch.tensor([1], dtype=torch.int32), low=0, high=1).all()


def test_d3_5_a_threshold_below_zero_does_not_let_all_positions_pass():
    low = torch.full((6, 6), -5.0)
    low[2, 3] = 1.0
    points = ifa.refine.focal_points(low, scope="local", threshold=np.float64(-1.0))
    assert points.tolist() == [[2, 3]]


def test_d3_5_a_single_maximum_is_a_focal_point():
    low = torch.zeros(6, 6)
    low[4, 1] = 1.0
    assert ifa.refine.focal_points(low, scope="local").tolist() == [[4, 1]]


def test_d3_6_constant_maps_are_no_nan():
    image = torch.rand(3, 12, 12)
    flat, bump = torch.ones(12, 12), torch.rand(12, 12)
    for low, high in (
        (flat, bump),
        (bump, flat),
        (flat, flat),
        (-flat, flat),
        (0 * flat, 0 * flat),
    ):
        refined = pipeline(image, low, high)
        assert all(one.isfinite().all() for one in refined)


def test_d3_7_sizes_come_from_the_inputs():
    """Everything was resized to one square, and (w, h) was mixed with (h, w)."""
    image, low, high = torch.rand(3, 20, 50), torch.zeros(4, 10), torch.rand(10, 25)
    low[0, 9] = 1.0
    refined = pipeline(image, low, high)
    assert refined.edges.shape == refined.merged.shape == (20, 50)
    rows, columns = refined.focal_points.unbind(1)
    assert rows.max() < 5
    assert columns.min() >= 45
    turned = pipeline(image.mT, low.mT, high.mT)
    torch.testing.assert_close(turned.edges.mT, refined.edges)
    assert torch.equal(turned.roi.mT, refined.roi)


def seedless(size=40):
    """Make a crater whose floor is where the coarse map peaks: away from all edges."""
    place = torch.arange(size) - 19.5
    far = (place.square() + place[:, None].square()).sqrt()
    return torch.rand(1, size, size), -far, far.clamp(min=4)


def test_d3_8_samples_without_a_seed_are_counted_and_seeds_may_snap():
    image, low, high = seedless()
    dropped, snapped = (pipeline(image, low, high, snap=snap) for snap in (False, True))
    assert (dropped.seeds, dropped.snapped) == (0, 0)
    assert not dropped.segmented.any()
    assert snapped.seeds == snapped.snapped == len(snapped.focal_points)
    lower, upper = snapped.bounds
    started = snapped.segmented & snapped.roi
    assert started.any()
    band = (snapped.edges >= lower) & (snapped.edges <= upper)
    assert (band | ~snapped.segmented).all()
    fine = pipeline(*drawn(2))
    assert fine.seeds > 0
    told = ifa.refine.seeded([dropped, snapped, fine, fine])
    assert (int(told.samples), int(told.seedless), float(told.share)) == (4, 1, 0.25)
    assert int(told.snapped) == 1
    assert ifa.refine.seeded([]).share.isnan()


def test_d3_9_a_percentage_is_refused_and_a_share_is_told():
    with pytest.raises(ValueError, match=r"Fifteen percent are 0\.15"):
        pipeline(*drawn(2), fraction=15)
    with pytest.raises(ValueError, match="'blend', 'multiply'"):
        pipeline(*drawn(2), how="merge")
    with pytest.raises(ValueError, match="'small', 'large'"):
        pipeline(*drawn(2), areas="global")


def test_d3_20_the_region_of_a_plateau_is_not_empty():
    plateau = torch.zeros(10)
    plateau[3:7] = 1.0
    region = ifa.refine.region_of_interest(plateau, fraction=0.15)
    assert region.nonzero().flatten().tolist() == [3, 4, 5, 6]
    image = torch.rand(1, 30)
    assert pipeline(image, plateau, image[0]).bounds.isfinite().all()


def test_d3_21_edges_are_those_of_scikit_image_borders_included():
    from skimage.filters import sobel

    for space in SIZES:
        values = torch.randn(SIZES[space], dtype=torch.float64)
        steep = ifa.refine.edges(ifa.Map(values, torch.tensor(0))).values
        # of one axis skimage has none; its border is ours
        if space > 1:
            np.testing.assert_allclose(steep, sobel(values.numpy()), atol=1e-12)


# ---- what is refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"low": torch.full((4, 5), torch.nan)}, "low to be finite, got 20 of 20"),
        ({"high": torch.full((17, 22), torch.inf)}, "high to be finite"),
        ({"low": torch.rand(2, 5, 7)}, "the image's 2 axes of space"),
        ({"low": np.zeros((5, 7))}, "low as a tensor, got ndarray"),
        ({"image": torch.rand(4, 3, 2, 17, 22)}, "for each example"),
        ({"region": 1.0}, "region to be a share"),
        ({"band": (0.75, 0.25)}, "the lower first"),
        ({"alpha": 2.0}, "alpha from 0 to 1"),
        ({"fraction": 0.1, "threshold": 0.5}, "a fraction or a threshold, got both"),
        ({"threshold": 60}, "threshold from 0 to 1"),
        ({"window": 4}, "window to be an odd number"),
        ({"hole": 0}, "hole to be a whole number"),
        ({"scope": "everywhere"}, "'global', 'local'"),
        ({"points": torch.tensor([[21, 3]])}, "seeds within"),
        ({"points": torch.rand(4, 2)}, "seeds as whole numbers"),
    ],
)
def test_what_is_refused(change, says):
    image, low, high = drawn(2)
    given = {"image": image, "low": low, "high": high, **change}
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        pipeline(given.pop("image"), given.pop("low"), given.pop("high"), **given)
    assert str(caught.value).startswith("ifa.refine.")
