"""Guided back-propagation and deconvnet: other rules for the gradient of a rectifier.

Every ReLU of the forward pass, module, function or method, in place or not, goes through a rule of
ours while it runs on the private copy. No module is replaced.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ifa.attribute.attributions import Attribution, check_model, slopes
from ifa.network.scorers import Scorer
from ifa.score import logit
from ifa.types import Inputs, Output, Score

_OUT_OF_PLACE = (torch.relu, Tensor.relu, functional.relu)
_IN_PLACE = (torch.relu_, Tensor.relu_)


def guided_backprop(
    model: nn.Module, *, score: Score = logit, output: Output = None
) -> Attribution:
    r"""Differentiate by the input, letting only positive gradients through active rectifiers.

    .. math:: R_\text{in} = R_\text{out} \odot 1[z > 0] \odot 1[R_\text{out} > 0]

    at every ReLU with the input z, and the ordinary gradient everywhere else. It shows edges that
    excite the target, and depends little on what the upper layers learned.

    Parameters
    ----------
    model, score, output
        As in `ifa.tap`. The model is never touched: no module of it is replaced. A ReLU is seen
        however it is written: ``nn.ReLU``, ``relu`` of `torch` and `torch.nn.functional`, the
        method, and each in place. In TorchScript it is not; ReLU6 and other activations keep their
        own gradient.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.gradient`, signed.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.gradient`; also, when called, if no ReLU ran: there it is the gradient.

    References
    ----------
    Springenberg et al. 2015, "Striving for simplicity: the all convolutional net". arXiv:1412.6806

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[2.0, -1.0, 5.0]]))
    >>> ifa.attribute.guided_backprop(net)(torch.tensor([[1.0, 1.0, -1.0]]), target=0)
    tensor([[2., 0., 0.]])
    """
    return _attribution("guided_backprop", model, score, output, _Guided)


def deconvnet(model: nn.Module, *, score: Score = logit, output: Output = None) -> Attribution:
    r"""Differentiate by the input, letting only positive gradients through rectifiers.

    .. math:: R_\text{in} = R_\text{out} \odot 1[R_\text{out} > 0]

    at every ReLU, whatever its input, and the ordinary gradient everywhere else.

    Parameters
    ----------
    model, score, output
        As in `ifa.attribute.guided_backprop`.

    Returns
    -------
    callable
        ``(inputs, target=None) -> attribution`` as of `ifa.attribute.gradient`, signed.

    Raises
    ------
    TypeError, ValueError
        As `ifa.attribute.guided_backprop`.

    References
    ----------
    Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks". arXiv:1311.2901

    Examples
    --------
    >>> import ifa, torch
    >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[2.0, -1.0, 5.0]]))
    >>> ifa.attribute.deconvnet(net)(torch.tensor([[1.0, 1.0, -1.0]]), target=0)
    tensor([[2., 0., 5.]])
    """
    return _attribution("deconvnet", model, score, output, _Deconvolved)


class _Deconvolved(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(inputs: Tensor) -> Tensor:
        return inputs.relu()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore
        return gradient.relu()


class _Guided(_Deconvolved):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        # not the input, which an in-place ReLU overwrites
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore
        (output,) = ctx.saved_tensors
        # what is not a number passes on, as through torch's own
        return torch.where(output <= 0, 0, gradient.relu())


class _Rectifiers(TorchFunctionMode):
    """Sends every ReLU through a rule."""

    def __init__(self, rule: type[torch.autograd.Function]):
        super().__init__()
        self.rule, self.count = rule, 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        in_place = func in _IN_PLACE
        if not in_place and func not in _OUT_OF_PLACE:
            return func(*args, **kwargs)
        self.count += 1
        names = ("input", "inplace")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        tensor = given["input"]
        rectified = self.rule.apply(tensor)
        return tensor.copy_(rectified) if in_place or given.get("inplace") else rectified


class _Rectified(Scorer):
    """A network whose rectifiers follow a rule."""

    def __init__(self, where: str, model: nn.Module, score: Score, output: Output, rule: Any):
        super().__init__(where, model, score, output)
        self.rule = rule

    def run(self, inputs: Inputs) -> Any:
        with _Rectifiers(self.rule) as rectifiers:
            output = super().run(inputs)
        if not rectifiers.count:
            modules = self.model.modules()
            kinds = {type(m).__name__ for m in modules if "activation" in type(m).__module__}
            came = f", but {', '.join(sorted(kinds))}" if kinds else ""
            name = self.where.rpartition(".")[2]
            raise ValueError(
                f"{self.where}: expected a network with ReLU, got {type(self.model).__name__} in "
                f"which none ran{came}: {name} equals the gradient there. "
                "Take ifa.attribute.gradient."
            )
        return output


def _attribution(
    name: str, model: nn.Module, score: Score, output: Output, rule: Any
) -> Attribution:
    where = f"ifa.attribute.{name}"
    check_model(where, model)
    return Attribution(_Rectified(where, model, score, output, rule), slopes)
