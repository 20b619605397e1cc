"""Laws of bases. `project` makes of a `Dictionary` a step from `Features` to `Features`."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from ifa.basis import Dictionary
from ifa.chains import chain
from ifa.stages import combine, product, weigh
from ifa.testing import strategies
from ifa.testing.assertions import assert_trees_close
from ifa.testing.holding import assert_same, copied, hold
from ifa.types import Features, Step
from ifa.weight import fullcam, gradcam, gradcam_plus_plus, layercam

Project = Callable[[Dictionary], Step]
Case = tuple[Features, Dictionary]


@st.composite
def _cases(draw: Any, *, full: bool = False) -> Case:
    """Draw the features of one example, and atoms for it: a rotation, or any of any number."""
    dtype = draw(st.sampled_from([torch.float32, torch.float64]), label="dtype")
    seen = draw(strategies.features(dtype=dtype))
    channels = len(seen.activations)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1), label="seed"))
    count = channels if full else draw(st.integers(1, 2 * channels), label="atoms")
    noise = torch.randn(2, count, channels, generator=generator, dtype=torch.float64)
    atoms, encode = torch.linalg.qr(noise[0]).Q.expand_as(noise) if full else noise
    mean = torch.randn(channels, generator=generator, dtype=torch.float64)
    return seen, Dictionary(atoms, encode, mean)


def _weighings(*kernels: Any) -> SearchStrategy[Step]:
    return st.sampled_from(kernels).map(weigh)


def a_full_orthonormal_basis_changes_no_map(
    project: Project, *, examples: int | None = None
) -> None:
    """In rotated channels the maps of fullcam and Grad-CAM are the same, and so is their sum."""

    @given(_cases(full=True), _weighings(fullcam, gradcam))
    def law(case: Case, weighing: Step) -> None:
        seen, dictionary = case
        turned = chain(project(dictionary), weighing)(seen)
        plain = weighing(seen)
        rounding = 1e-6 * (1e-30 + float(product(plain).abs().sum(0).max()))
        assert_trees_close(combine(turned), combine(plain), rtol=1e-6, atol=4 * rounding)
        sums = [product(one).double().sum() for one in (turned, plain)]
        assert_trees_close(*sums, rtol=1e-6, atol=4 * rounding * seen.activations[0].numel())

    hold(law, examples)


def the_identity_basis_gives_the_channels(project: Project, *, examples: int | None = None) -> None:
    """Where every atom is a channel, all is as it is in channels, to the bit."""

    @given(_cases(), _weighings(fullcam, gradcam, gradcam_plus_plus, layercam))
    def law(case: Case, weighing: Step) -> None:
        seen, dictionary = case
        channels = torch.eye(len(seen.activations))
        step = project(dictionary._replace(atoms=channels, encode=channels))
        assert_same(step(seen), seen)
        assert_same(chain(step, weighing)(seen), weighing(seen))

    hold(law, examples)


def permuting_atoms_permutes_importances(project: Project, *, examples: int | None = None) -> None:
    """No atom is special: in another order they have the same importances in that order."""

    @given(_cases(), _weighings(fullcam, gradcam, layercam), st.data())
    def law(case: Case, weighing: Step, data: st.DataObject) -> None:
        seen, dictionary = case
        order = data.draw(st.permutations(range(len(dictionary.atoms))), label="order")
        other = dictionary._replace(atoms=dictionary.atoms[order], encode=dictionary.encode[order])
        parts = [product(chain(project(one), weighing)(seen)) for one in (dictionary, other)]
        assert_trees_close(parts[1], parts[0][order])

    hold(law, examples)


def what_no_atom_holds_is_the_rest(project: Project, *, examples: int | None = None) -> None:
    """Of any atoms, fullcam's map and that of what they do not make up are the layer's."""

    @given(_cases())
    def law(case: Case) -> None:
        seen, dictionary = case
        activations, gradients, target = seen
        turned = project(dictionary)(seen)
        atoms, encode = (part.to(activations) for part in dictionary[:2])
        made = _over_channels(atoms.T, _over_channels(encode, activations))
        rest = weigh(fullcam)(Features(activations - made, gradients, target))
        found = combine(weigh(fullcam)(turned)).values + combine(rest).values
        whole = combine(weigh(fullcam)(seen)).values
        sizes = (made.abs() + activations.abs()) * gradients.abs()
        sizes = sizes.sum(0).max() + product(weigh(fullcam)(turned)).abs().sum(0).max()
        precision = 64 * torch.finfo(activations.dtype).eps * float(atoms.norm() * encode.norm())
        bound = (1 + precision) * 64 * torch.finfo(activations.dtype).eps * float(sizes)
        bound += precision * float(activations.abs().max() * gradients.abs().sum(0).max())
        assert_trees_close(found, whole, rtol=0, atol=bound)

    hold(law, examples)


def projecting_leaves_its_input(project: Project, *, examples: int | None = None) -> None:
    """Neither features nor dictionary are written to, and the target is kept."""

    @given(_cases())
    def law(case: Case) -> None:
        before = copied(case)
        found = project(case[1])(case[0])
        assert_same(case, before)
        assert_same(found.target, before[0].target)

    hold(law, examples)


BASIS = (
    a_full_orthonormal_basis_changes_no_map,
    the_identity_basis_gives_the_channels,
    permuting_atoms_permutes_importances,
    what_no_atom_holds_is_the_rest,
    projecting_leaves_its_input,
)


def _over_channels(matrix: Tensor, values: Tensor) -> Tensor:
    return torch.einsum("kc,c...->k...", matrix, values)
