"""Features of a dictionary in the place of channels."""

from functools import partial

from torch import Tensor

from ifa.basis.dictionaries import Dictionary, check_dictionary, encode
from ifa.declared import declare
from ifa.stages import expect
from ifa.types import Features, Step


def project(dictionary: Dictionary) -> Step:
    r"""Make a step that reads `Features` in a basis: from it on, a channel is an atom.

    .. math:: U_k(p) = \sum_c E_{kc} A_c(p), \qquad
        \frac{\partial S}{\partial U_k}(p) = \sum_c D_{kc} G_c(p)

    With :math:`A(p) = \sum_k U_k(p) D_k`, as in a full basis, the sum over channels of activation
    times gradient is the same in both: so are the maps and the sum of importances of `fullcam` and
    `gradcam`. Of atoms that do not span the layer, the rest is in none of them.

    Parameters
    ----------
    dictionary
        Of the layer, see `ifa.basis.Dictionary`.

    Returns
    -------
    callable
        `Features` -> `Features`, of atoms in the place of channels. It comes first in a chain.

    Raises
    ------
    TypeError, ValueError
        If it is no dictionary, or (when called) its channels are not the layer's.

    Examples
    --------
    >>> import ifa, torch
    >>> turned = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    >>> step = ifa.project(ifa.basis.Dictionary(turned, turned, torch.zeros(2)))
    >>> seen = ifa.Features(torch.eye(2), torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor(0))
    >>> explain = ifa.chain(ifa.weigh(ifa.weight.fullcam), ifa.combine)
    >>> explain(seen).values, explain(step(seen)).values
    (tensor([2., 4.]), tensor([2., 4.]))
    """
    return partial(_project, dictionary=check_dictionary("ifa.project", dictionary))


@declare(kind="projection", gradients=False)
def _project(features: Features, *, dictionary: Dictionary) -> Features:
    where = "ifa.project"
    expect(where, features, Features, "Put it first in the chain, before ifa.weigh(...).")
    activations, gradients, target = features
    if len(activations) != dictionary.atoms.shape[1]:
        check_dictionary(where, dictionary, len(activations))
    codes = encode(dictionary, activations)
    return Features(codes, onto_atoms(dictionary, gradients), target)


def onto_atoms(dictionary: Dictionary, gradients: Tensor) -> Tensor:
    r"""Return the gradient of each code from that of each channel, (channel, \*space)."""
    flat = gradients.reshape(len(gradients), -1)
    return (dictionary.atoms.to(gradients) @ flat).reshape(-1, *gradients.shape[1:])
