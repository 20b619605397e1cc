"""Filters, regions and merging: against plain loops and other libraries, laws, and refusals."""

import math
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from torch.func import vmap
from torch.nn.functional import interpolate

import ifa
from ifa import refine
from ifa.testing import assert_trees_close, laws

SIZES = {1: (13,), 2: (7, 9), 3: (5, 4, 6)}


def as_map(values, target=0):
    return ifa.Map(values, torch.tensor(target))


def at(shape):
    """Make an image for maps of a size, the same each time."""
    return torch.from_numpy(np.random.default_rng(3).random((2, *shape)))


FILTERS = {
    "bilateral": lambda image: refine.bilateral(image, radius=1),
    "blurred": lambda image: refine.blurred(window=3),
    "guided": lambda image: refine.guided(image, radius=2),
}
STEPS = {
    name: (lambda value, made=made: made(at(value.values.shape))(value))
    for name, made in FILTERS.items()
} | {"edges": refine.edges}


@pytest.mark.parametrize("law", laws.FILTER)
@pytest.mark.parametrize("name", FILTERS)
def test_filter(name, law):
    law(FILTERS[name], examples=10)


@pytest.mark.parametrize("law", laws.STEP)
@pytest.mark.parametrize("name", STEPS)
def test_step(name, law):
    law(STEPS[name], examples=10)


@pytest.mark.parametrize("law", laws.FILL)
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_fill(size, law):
    law(lambda mask: refine.filled(mask, size=size), examples=20)


# ---- against plain loops


def windowed(size, place, radius):
    ranges = [
        range(max(0, p - radius), min(n, p + radius + 1)) for p, n in zip(place, size, strict=True)
    ]
    return list(product(*ranges))


def plain_guided(image, values, radius, epsilon):
    """Fit every window by least squares with a ridge, then average the fits."""
    size, fits = values.shape, {}
    for place in np.ndindex(size):
        window = windowed(size, place, radius)
        guide = np.array([image[(slice(None), *one)] for one in window])
        wanted = np.array([values[one] for one in window])
        centred = guide - guide.mean(0)
        matrix = centred.T @ centred / len(window) + epsilon * np.eye(len(image))
        slope = np.linalg.solve(matrix, centred.T @ wanted / len(window))
        fits[place] = slope, wanted.mean() - slope @ guide.mean(0)
    result = np.zeros(size)
    for place in np.ndindex(size):
        window = windowed(size, place, radius)
        slope = np.mean([fits[one][0] for one in window], axis=0)
        result[place] = slope @ image[(slice(None), *place)] + np.mean([fits[o][1] for o in window])
    return result


@pytest.mark.parametrize("space", SIZES)
def test_guided_is_the_mean_of_fits_by_windows(space):
    image = at(SIZES[space])
    values = torch.randn(SIZES[space], dtype=torch.float64)
    for radius, epsilon in ((1, 1e-2), (3, 1e-4)):
        found = refine.guided(image, radius=radius, epsilon=epsilon)(as_map(values)).values
        expected = plain_guided(image.numpy(), values.numpy(), radius, epsilon)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_guided_by_a_constant_is_two_box_means():
    values = torch.randn(8, 9, dtype=torch.float64)
    found = refine.guided(torch.full((3, 8, 9), 7.0), radius=2)(as_map(values)).values
    mean = {p: values[tuple(np.array(windowed((8, 9), p, 2)).T)].mean() for p in np.ndindex(8, 9)}
    for place in np.ndindex(8, 9):
        expected = torch.stack([mean[one] for one in windowed((8, 9), place, 2)]).mean()
        torch.testing.assert_close(found[place], expected)


def test_guided_does_not_depend_on_the_offset_of_the_image():
    image, values = at((9, 9)), as_map(torch.randn(9, 9, dtype=torch.float64))
    far = refine.guided(image + 1e6)(values).values
    torch.testing.assert_close(far, refine.guided(image)(values).values, rtol=1e-6, atol=1e-7)


def plain_bilateral(image, values, radius, space, tone):
    size, grid = image.shape[1:], values.shape
    coarse = ifa.resize(grid)(as_map(torch.from_numpy(image))).values.numpy()
    result = np.zeros(size)
    for pixel in np.ndindex(size):
        place = [(p + 0.5) * g / n - 0.5 for p, n, g in zip(pixel, size, grid, strict=True)]
        terms = []
        for by in product(range(-radius, radius + 1), repeat=len(size)):
            unit = tuple(
                min(max(round(p), 0), g - 1) + b for p, b, g in zip(place, by, grid, strict=True)
            )
            if all(0 <= u < g for u, g in zip(unit, grid, strict=True)):
                far = sum((p - u) ** 2 for p, u in zip(place, unit, strict=True))
                unlike = np.square(
                    image[(slice(None), *pixel)] - coarse[(slice(None), *unit)]
                ).sum()
                weight = math.exp(-far / (2 * space**2) - unlike / (2 * tone**2))
                terms.append((weight, values[unit]))
        result[pixel] = sum(w * v for w, v in terms) / sum(w for w, _ in terms)
    return result


@pytest.mark.parametrize(
    ("size", "grid"),
    [((13,), (13,)), ((13,), (4,)), ((9, 8), (4, 3)), ((7, 8), (7, 8)), ((4, 6, 5), (2, 3, 2))],
)
def test_bilateral_is_a_mean_over_units_alike(size, grid):
    image, values = at(size), torch.randn(grid, dtype=torch.float64)
    options = {"radius": 2 if len(size) < 3 else 1, "space": 0.8, "tone": 0.3}
    found = refine.bilateral(image, **options)(as_map(values)).values
    expected = plain_bilateral(image.numpy(), values.numpy(), **options)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_bilateral_of_tones_far_apart_is_finite_and_within_the_map():
    image = torch.tensor([[0.0, 50.0, 100.0, 150.0]])
    values = torch.tensor([-3.0, 5.0])
    found = refine.bilateral(image, tone=0.01)(as_map(values)).values
    assert found.isfinite().all()
    assert (found.min(), found.max()) >= (-3, 5)


def test_edges_of_a_ramp():
    for space in (1, 2, 3):
        ramp = torch.arange(7.0).reshape(-1, *[1] * (space - 1)).expand(7, *[5] * (space - 1))
        steep = refine.edges(as_map(ramp)).values[1:-1]
        torch.testing.assert_close(steep, torch.full_like(steep, 2 / space**0.5))


def test_shifting_space_shifts_what_is_filtered_away_from_borders():
    image = torch.rand(2, 30, 30, dtype=torch.float64)
    values = torch.randn(30, 30, dtype=torch.float64)
    for name in FILTERS:
        whole = FILTERS[name](image)(as_map(values)).values
        part = FILTERS[name](image[:, 2:, 3:])(as_map(values[2:, 3:])).values
        torch.testing.assert_close(whole[2:, 3:][8:-8, 8:-8], part[8:-8, 8:-8])


# ---- steps in chains


def test_filters_compose_pickle_and_print():
    image = at((8, 8)).float()
    steps = ifa.chain(ifa.relu, ifa.resize((8, 8)), refine.guided(image), refine.blurred(window=3))
    assert "guided(image=float32(2, 8, 8), radius=4" in repr(steps)
    value = as_map(torch.randn(4, 4))
    found = steps(value)
    assert found.values.dtype == torch.float32
    assert_trees_close(pickle.loads(pickle.dumps(steps))(value), found)


def test_filters_are_lifted_over_samples_and_targets_with_their_images():
    images, maps = torch.rand(3, 2, 8, 8), torch.randn(4, 3, 8, 8)
    targets = torch.arange(12).reshape(4, 3)
    lifted = ifa.batched(lambda pair: refine.guided(pair[1])(pair[0]))
    many = lifted((ifa.Map(maps, targets), images))
    assert many.values.shape == maps.shape
    for sample in range(3):
        one = refine.guided(images[sample])(as_map(maps[2, sample])).values
        torch.testing.assert_close(many.values[2, sample], one)
    few = lifted((ifa.Map(maps[0], targets[0]), images))
    torch.testing.assert_close(few.values, many.values[0])


def test_blocks_are_filtered_each():
    image, values = at((6, 7)), torch.randn(3, 6, 7, dtype=torch.float64)
    coarse = torch.randn(3, 2, 3, dtype=torch.float64)
    for step, given in ((refine.guided(image), values), (refine.bilateral(image), coarse)):
        whole = step(as_map(given)).values
        for block in range(3):
            torch.testing.assert_close(whole[block], step(as_map(given[block])).values)


def test_nan_stays_nan():
    values = torch.zeros(12)
    values[6] = torch.nan
    for made in FILTERS.values():
        assert made(at((12,)))(as_map(values)).values[6].isnan()
    assert refine.edges(as_map(values)).values[5].isnan()
    assert not refine.region_of_interest(values).any()


def test_arrays_are_lifted_by_vmap():
    maps, images = torch.randn(3, 6, 7), torch.rand(3, 2, 6, 7)
    segments = torch.rand(3, 6, 7) > 0.5
    for function, given in (
        (refine.region_of_interest, (maps,)),
        (refine.blended, (segments, maps)),
        (refine.cropped, (images, maps)),
    ):
        looped = torch.stack([function(*one) for one in zip(*given, strict=True)])
        assert_trees_close(vmap(function)(*given), looped)


def test_gradients_flow_through_filters():
    values = torch.randn(6, 7, requires_grad=True)
    refine.guided(at((6, 7)).float())(as_map(values)).values.square().sum().backward()
    assert values.grad.isfinite().all()


# ---- regions


def test_grown_is_a_flood_fill():
    from skimage.segmentation import flood

    values = torch.rand(15, 17)
    for seed in ((3, 4), (10, 2), (0, 16)):
        found = refine.grown(values, torch.tensor(seed), low=0.2, high=0.8)
        inside = 0.2 <= values[seed] <= 0.8
        band = ((values >= 0.2) & (values <= 0.8)).numpy()
        expected = flood(band, seed, connectivity=1) if inside else np.zeros_like(band)
        assert (found.numpy() == expected).all()


def test_filled_is_that_of_scikit_image():
    from scipy.ndimage import label

    for space in (1, 2, 3):
        mask = torch.rand(SIZES[space]) > 0.4
        for size in (1, 2, 4, 50):
            found = refine.filled(mask, size=size).numpy()
            parts, count = label(~mask.numpy())
            expected = mask.numpy().copy()
            for part in range(1, count + 1):
                expected |= (parts == part) if (parts == part).sum() < size else False
            assert (found == expected).all()


def test_local_maxima_are_those_of_scikit_image():
    from skimage.morphology import local_maxima

    for space in (1, 2, 3):
        values = torch.randint(0, 4, SIZES[space]).float()
        found = refine.focal_points(values, scope="local", areas="large", threshold=-1)
        expected = np.argwhere(local_maxima(values.numpy(), allow_borders=True))
        assert (found.numpy() == expected).all()


def test_focal_points_by_default_are_fifteen_of_224_and_ties_go_to_the_first():
    assert len(refine.focal_points(torch.rand(14, 14), size=(224, 224))) == 15
    assert refine.focal_points(torch.ones(3, 4), count=3).tolist() == [[0, 0], [0, 1], [0, 2]]


def test_region_of_interest_is_the_share_that_is_asked_for():
    values = torch.randperm(200).reshape(10, 20).float()
    for fraction in (0.05, 0.15, 0.5):
        assert refine.region_of_interest(values, fraction=fraction).sum() == round(200 * fraction)
    assert refine.region_of_interest(-values - 1).sum() == 30  # signed


def test_blended_ends_are_its_operands():
    segment, values = torch.rand(5, 6) > 0.5, torch.randn(5, 6, dtype=torch.float64)
    for alpha, expected in ((1, segment.double()), (0, ifa.minmax(as_map(values)).values)):
        assert_trees_close(refine.blended(segment, values, alpha=alpha), expected)
    product_ = refine.blended(segment, values, how="multiply")
    assert_trees_close(product_, segment * ifa.minmax(as_map(values)).values)
    # a segment that is everywhere cuts nothing away
    whole = refine.blended(segment | True, values, how="multiply")
    assert_trees_close(whole, ifa.minmax(as_map(values)).values)


# ---- what others bring along


def linear(features, image):
    return interpolate(features, image.shape[2:], mode="bilinear")


def test_a_learned_upsampler_is_a_step_before_or_after_the_weighting():
    image = torch.rand(3, 8, 12)
    features = ifa.Features(torch.randn(5, 2, 3), torch.randn(5, 2, 3), torch.tensor(1))
    finer, resize = refine.upsampled(image, linear), ifa.resize((8, 12))
    for kernel in (ifa.weight.gradcam, ifa.weight.hirescam):
        weigh = ifa.weigh(kernel)
        after = ifa.chain(weigh, finer, ifa.combine)(features)
        assert after.values.shape == (8, 12)
        before = ifa.chain(finer, weigh, ifa.combine)(features)
        torch.testing.assert_close(after.values, before.values, rtol=0.3, atol=0.3)
    # one weight for each channel: combining and linear interpolation commute
    coarse = ifa.chain(ifa.weigh(ifa.weight.gradcam), ifa.combine, resize)(features)
    fine = ifa.chain(ifa.weigh(ifa.weight.gradcam), finer, ifa.combine)(features)
    torch.testing.assert_close(fine.values, coarse.values)


def test_an_upsampler_sees_the_image_and_is_lifted_over_a_batch():
    class Learned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Conv2d(5 + 3, 5, 3, padding=1)

        def forward(self, features, image):
            return self.mix(torch.cat([linear(features, image), image], 1))

    images, learned = torch.rand(4, 3, 8, 8), Learned().eval().requires_grad_(False)
    several = ifa.Features(torch.randn(4, 5, 2, 2), torch.randn(4, 5, 2, 2), torch.arange(4))
    lifted = ifa.batched(lambda pair: refine.upsampled(pair[1], learned)(pair[0]))
    whole = lifted((several, images))
    one = ifa.Features(*(field[2] for field in several))
    torch.testing.assert_close(
        whole.activations[2], refine.upsampled(images[2], learned)(one).activations
    )


def test_segments_take_their_mean_and_a_partition_keeps_that_of_the_map():
    from skimage.segmentation import felzenszwalb

    def felz(image):
        pixels = image.movedim(0, -1).double().numpy()
        return torch.from_numpy(felzenszwalb(pixels, scale=100, sigma=0.5, min_size=10))

    image = torch.zeros(3, 20, 20)
    image[:, 5:15, 5:15] = 1.0
    values = torch.randn(20, 20)
    found = refine.segmented(image, felz)(as_map(values)).values
    assert found.unique().numel() == felz(image).unique().numel() > 1
    torch.testing.assert_close(found.mean(), values.mean())
    inside = felz(image) == felz(image)[10, 10]
    torch.testing.assert_close(found[10, 10], values[inside].mean())


def test_masks_may_overlap_and_what_is_in_none_is_a_segment():
    values = torch.tensor([1.0, 3.0, 5.0, 7.0, 9.0])
    masks = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]).bool()
    step = refine.segmented(torch.rand(1, 5), lambda image: masks)
    assert step(as_map(values)).values.tolist() == [2, 3, 4, 8, 8]
    blocks = step(as_map(torch.stack([values, -values]))).values
    assert blocks.tolist() == [[2, 3, 4, 8, 8], [-2, -3, -4, -8, -8]]
    one = refine.segmented(torch.rand(1, 5), lambda image: masks[0])
    assert one(as_map(values)).values.tolist() == [2, 2, 7, 7, 7]


# ---- refusals

IMAGE, VALUES, ZERO = torch.rand(1, 6, 7), torch.rand(6, 7), torch.tensor(0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: refine.guided(IMAGE, radius=0), "radius to be a whole number"),
        (lambda: refine.guided(IMAGE, epsilon=0.0), "epsilon to be positive"),
        (lambda: refine.guided(IMAGE.long()), r"image\.float\(\)"),
        (lambda: refine.guided(VALUES[0]), r"one image \(channel, \*space\)"),
        (lambda: refine.guided(IMAGE)(as_map(VALUES[:5])), "Put ifa.place or ifa.resize before"),
        (lambda: refine.guided(IMAGE)(as_map(VALUES[0])), "the image's 2 axes"),
        (lambda: refine.guided(IMAGE)(VALUES), "expected Map, got Tensor"),
        (lambda: refine.bilateral(IMAGE, tone=-1.0), "tone to be positive"),
        (lambda: refine.bilateral(IMAGE, space=math.inf), "space to be positive"),
        (lambda: refine.blurred(window=4), "window to be an odd number"),
        (lambda: refine.edges(as_map(torch.rand(1, 2, 3, 4))), "of one to three axes"),
        (lambda: refine.region_of_interest(VALUES, fraction=15), "Fifteen percent are 0.15"),
        (lambda: refine.focal_points(VALUES, count=0), "count to be a whole number"),
        (lambda: refine.focal_points(VALUES, size=(6,)), "2 positive extents"),
        (lambda: refine.focal_points(VALUES * torch.nan), "finite, got 42 of 42"),
        (lambda: refine.focal_points(VALUES > 0), "of real numbers, got bool"),
        (lambda: refine.grown(VALUES, torch.tensor([[1, 9]])), r"seeds within \(6, 7\)"),
        (lambda: refine.grown(VALUES, torch.tensor([[1]])), r"whole numbers \(point, 2\)"),
        (lambda: refine.grown(VALUES, [(1, 2)]), "whole numbers"),
        (lambda: refine.filled(VALUES, size=3), "boolean mask"),
        (lambda: refine.filled(VALUES > 0, size=0), "size to be a whole number"),
        (lambda: refine.blended(VALUES, VALUES, alpha=50), "alpha from 0 to 1"),
        (lambda: refine.blended(VALUES, VALUES[0]), "as many axes"),
        (lambda: refine.upsampled(IMAGE, 3), "an upsampler that can be called"),
        (
            lambda: refine.upsampled(IMAGE, lambda f, i: f[:, :1])(
                ifa.Features(VALUES[None].expand(2, 6, 7), VALUES[None].expand(2, 6, 7), ZERO)
            ),
            "as many channels and axes",
        ),
        (lambda: refine.upsampled(IMAGE, linear)(as_map(VALUES)), "expected Features, got Map"),
        (lambda: refine.segmented(IMAGE, None), "a segmenter that can be called"),
        (lambda: refine.segmented(IMAGE, lambda image: image[0]), "whole labels"),
        (lambda: refine.segmented(IMAGE, lambda image: image.long()), "masks to be boolean"),
        (
            lambda: refine.segmented(IMAGE, lambda image: image[0].long())(as_map(VALUES.T)),
            "a map of the image's size",
        ),
        (lambda: refine.cropped(VALUES, VALUES), r"an image \(channel, \*space\)"),
    ],
)
def test_what_is_refused(call, says):
    with pytest.raises((TypeError, ValueError), match=says) as caught:
        call()
    assert str(caught.value).startswith("ifa.refine.")
