"""A training as far as it has come: one epoch after the other, each from a file or to it."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ifa.network.identity import model_token
from ifa.network.inputs import moved, take
from ifa.network.tokens import callable_token
from ifa.network.tokens import digest_of as token_digest
from ifa.refine.class_maps import Whole
from ifa.refine.trunks import private
from ifa.store.files import write_atomically
from ifa.store.items import Batch

# (what the network computes of a batch, its inputs, its labels) -> loss, ()
Loss = Callable[[Any, Any, Tensor], Tensor]
# (inputs, seed) -> inputs
Augment = Callable[[Any, int], Any]
Recipe = Literal["cosine", "plateau"]


@dataclass(frozen=True)
class Plan:
    """What a training is, once checked."""

    loss: Loss
    keys: Callable[[str], bool]
    epochs: int
    batch_size: int
    rate: float
    recipe: Recipe
    augment: Augment | None
    seed: int


class Run:
    """A training as far as it has come."""

    def __init__(self, where: str, model: nn.Module, params: dict[str, Tensor], plan: Plan):
        self.where, self.plan, self.frozen = where, plan, params
        self.module = Whole(private(where, model))  # pyright: ignore[reportArgumentType]
        names = dict(self.module.model.named_parameters())
        # of modules of which nothing trains no buffer is written
        for path, module in self.module.model.named_modules():
            module.training = bool(path) and plan.keys(f"{path}.")
        training = tuple(
            name for name in params if name not in names and self._module_of(name).training
        )
        self.buffers = {name: params[name].clone() for name in training}
        self.leaves = {
            name: params[name].clone().requires_grad_() for name in names if plan.keys(name)
        }
        if not self.leaves:
            raise ValueError(
                f"{where}: expected keys to choose parameters to train, got none of "
                f"{len(names)}, such as {next(iter(names), None)!r}."
            )
        self.optimizer, self.schedule = _optimizer(list(self.leaves.values()), plan)
        self.losses: list[float] = []
        self.held: list[float] = []
        self.best, self.kept = 0, self._now()
        self.digest = ""

    @property
    def done(self) -> int:
        return len(self.losses)

    def _module_of(self, name: str) -> nn.Module:
        return self.module.model.get_submodule(name.rpartition(".")[0])

    def _now(self) -> dict[str, Tensor]:
        changing = {**self.leaves, **self.buffers}
        return {name: tensor.detach().clone() for name, tensor in changing.items()}

    def _part(self, inputs: Any, labels: Tensor, some: Tensor) -> tuple[Any, Tensor]:
        """Take some samples to where the parameters are."""
        device = next(iter(self.leaves.values())).device
        return moved(take(inputs, some), device), labels[some].to(device)

    def _loss(self, inputs: Any, labels: Tensor) -> Tensor:
        tensors = {**self.frozen, **self.buffers, **self.leaves}
        prefixed = {f"model.{name}": tensor for name, tensor in tensors.items()}
        return self.plan.loss(functional_call(self.module, prefixed, (inputs,)), inputs, labels)

    def epoch(self, inputs: Any, labels: Tensor, kept: Tensor, chosen: Tensor) -> None:
        """Train for one epoch; what is drawn in it depends on the seed and its number alone."""
        plan, number = self.plan, self.done
        drawn = np.random.default_rng((plan.seed, 1 + number))
        torch.manual_seed(int(drawn.integers(2**31)))
        total = 0.0
        for some in kept[torch.from_numpy(drawn.permutation(len(kept)))].split(plan.batch_size):
            part, wanted = self._part(inputs, labels, some)
            if plan.augment is not None:
                part = plan.augment(part, int(drawn.integers(2**31)))
            self.optimizer.zero_grad()
            loss = self._loss(part, wanted)
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(some)
        self.losses.append(self._finite(total / len(kept)))
        # pyright reads the signature of the cosine's
        step: Any = self.schedule.step
        step(*([self.losses[-1]] if plan.recipe == "plateau" else []))
        self.held.append(self._held_out(inputs, labels, chosen))
        last = not len(chosen) or self.held[-1] < min(self.held[:-1], default=torch.inf)
        if last:
            self.best, self.kept = number, self._now()

    def _held_out(self, inputs: Any, labels: Tensor, chosen: Tensor) -> float:
        modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()
        try:
            with torch.no_grad():
                sums = [
                    float(self._loss(*self._part(inputs, labels, some))) * len(some)
                    for some in chosen.split(self.plan.batch_size)
                    if len(some)
                ]
        finally:
            for module, mode in modes:
                module.training = mode
        return self._finite(sum(sums) / len(chosen)) if len(chosen) else float("nan")

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise ValueError(
                f"{self.where}: expected a finite loss, got {loss} in epoch {len(self.held)}. Take "
                "a smaller rate=, or look for NaN in the data."
            )
        return loss

    def write(self, path: Path) -> None:
        """Write all that the next epoch needs, whole or not at all."""
        state = {
            "digest": self.digest,
            "now": self._now(),
            "kept": self.kept,
            "best": self.best,
            "losses": self.losses,
            "held": self.held,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_atomically(path, lambda file: file.write(content.getvalue()))

    def resume(self, path: Path, digest: str) -> None:
        """Continue from a file, if it is there and of this training."""
        self.digest = digest
        if not path.exists():
            return
        device = next(iter(self.leaves.values())).device
        state = torch.load(path, weights_only=True, map_location=device)
        if state["digest"] != digest:
            raise ValueError(
                f"{self.where}: expected the checkpoint {str(path)!r} to be of this training, got "
                "one of another network, or with other data, parameters or options. Remove it, or "
                "name another file."
            )
        with torch.no_grad():
            for name, tensor in {**self.leaves, **self.buffers}.items():
                tensor.copy_(state["now"][name])
        self.kept, self.best = state["kept"], state["best"]
        self.losses, self.held = state["losses"], state["held"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def _optimizer(leaves: list[Tensor], plan: Plan) -> tuple[Any, Any]:
    if plan.recipe == "cosine":
        optimizer = torch.optim.AdamW(leaves, lr=plan.rate, weight_decay=1e-2)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.epochs)
    optimizer = torch.optim.Adadelta(leaves, lr=plan.rate, rho=0.95, eps=1e-7)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    return optimizer, plateau(optimizer, factor=0.1**0.5, patience=10, min_lr=1e-5)


def digest_of(run: Run, batch: Batch, held_out: float) -> str:
    """Tell one training from another: by network, parameters, data and options."""
    plan, network = run.plan, model_token(run.module.model)
    modules = run.module.model.named_modules()
    return token_digest(
        {
            "network": {name: network[name] for name in ("settings", "code", "hooks")},
            "params": {name: callable_token(one) for name, one in run.frozen.items()},
            "trained": sorted(run.leaves),
            "training": sorted(name for name, module in modules if module.training),
            "loss": callable_token(plan.loss, f"{run.where}, loss"),
            "augment": callable_token(plan.augment, f"{run.where}, augment"),
            "options": [*_options(plan), held_out],
            "data": batch.digests.tobytes().hex(),
        }
    )


def _options(plan: Plan) -> list[int | float | str]:
    return [plan.epochs, plan.batch_size, plan.rate, plan.recipe, plan.seed]
