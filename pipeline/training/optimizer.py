"""Optimisers, and the learning rate over a run."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.rules import above, at_least, one_of, within

OPTIMIZERS = ("adamw", "muon")
HIDDEN = (".blocks.", ".whole.")  # of the backbone, and the dense paths of the codec


@dataclass(frozen=True)
class OptimizerSpec:
    """`muon`: Muon for the matrices between hidden layers, AdamW for all else; `adamw`: AdamW for everything.

    Muon: arXiv:2502.16982, eq. 1.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    matrix_learning_rate: float = 2e-2  # of Muon; unused by adamw
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    warmup_steps: int = 0
    decay_share: float = 1.0  # last share of the run over which the rate falls linearly to 0
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        one_of(OPTIMIZERS, name=self.name)
        above(0, learning_rate=self.learning_rate, matrix_learning_rate=self.matrix_learning_rate)
        above(0, max_grad_norm=self.max_grad_norm)
        within(0, 1, open_high=True, beta1=self.beta1, beta2=self.beta2)
        within(0, 1, weight_decay=self.weight_decay, decay_share=self.decay_share)
        at_least(0, warmup_steps=self.warmup_steps)

    def rate_at(self, step: int, num_steps: int) -> float:
        """The factor on the learning rate of update number `step` of `num_steps`, counted from 0."""
        warmup = min(1.0, (step + 1) / (self.warmup_steps + 1))
        decay_steps = self.decay_share * num_steps
        left = num_steps - step
        return warmup * (min(1.0, left / decay_steps) if decay_steps else 1.0)


class Optimizer:
    """Every trainable parameter of one network, under one or two of torch's optimisers."""

    def __init__(self, spec: OptimizerSpec, module: nn.Module) -> None:
        self.spec = spec
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        matrices = [p for name, p in named if spec.name == "muon" and is_hidden_matrix(name, p)]
        chosen = {id(p) for p in matrices}
        rest = [p for p in self.parameters if id(p) not in chosen]
        betas = (spec.beta1, spec.beta2)
        adamw = torch.optim.AdamW(rest, spec.learning_rate, betas, weight_decay=spec.weight_decay, foreach=True)
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [(adamw, spec.learning_rate)]
        if matrices:
            rate = spec.matrix_learning_rate
            muon = torch.optim.Muon(matrices, rate, weight_decay=spec.weight_decay, momentum=0.95)
            self.optimizers.append((muon, rate))

    def update(self, gradients: Iterable[Tensor], *, factor: float) -> Tensor:
        """One step down these gradients, clipped, at `factor` times the learning rate. Returns their norm.

        Raises:
            FloatingPointError: the norm is not finite; no weight has moved.
        """
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.clip_grad_norm_(self.parameters, self.spec.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"the gradient's norm is {norm.item()}")
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = factor * rate
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """All that the optimisers remember, by name."""
        return {
            f"{index}.{parameter}.{name}": value
            for index, (optimizer, _) in enumerate(self.optimizers)
            for parameter, state in optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `tensors` gave."""
        for index, (optimizer, _) in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                owner, parameter, name = key.split(".")
                if int(owner) == index:
                    state.setdefault(int(parameter), {})[name] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Muon is for the matrices inside; embeddings, heads, convolutions and vectors stay with AdamW."""
    return parameter.ndim == 2 and any(part in f".{name}" for part in HIDDEN)
