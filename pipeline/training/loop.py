"""The training loop: any method with any loss. It yields a report a step, and never logs, prints or saves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from pipeline.diffusion.adaptive import AdaptiveSchedule, AdaptiveSpec
from pipeline.diffusion.schedule import Schedule
from pipeline.interfaces import Judge, Labels, NoiseLevel, Rollout, Scalar, Video
from pipeline.losses.loss import CriticLoss, Loss, StagedLoss
from pipeline.methods.method import Method
from pipeline.models.denoiser import Denoiser
from pipeline.models.ema import Ema
from pipeline.rules import at_least, within
from pipeline.streams import stream
from pipeline.training.optimizer import Optimizer, OptimizerSpec

ATTENTION_FLOPS = {  # which torch's counter knows on accelerators only
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}
Clips = Float[Tensor, "N T C H W"]


@dataclass(frozen=True)
class TrainingSpec:
    """How long, how much at a time, and how fast. A step is one student update."""

    num_steps: int
    batch_size: int = 64
    micro_batch_size: int | None = None  # clips at once, of whose gradients an update takes the mean; null: all
    label_dropout: float = 0.0  # share of clips whose class a network is not told: it learns to answer without, too
    ema_decay: float = 0.99
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    critic_optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    report_every: int = 10  # steps that one row of the curve averages
    checkpoint_every: int = 500  # steps; a multiple of report_every
    adaptive: AdaptiveSpec | None = None  # draw levels where the loss on data is large

    def __post_init__(self) -> None:
        at_least(1, num_steps=self.num_steps, batch_size=self.batch_size)
        if self.micro_batch_size is not None:
            at_least(1, micro_batch_size=self.micro_batch_size)
            if self.batch_size % self.micro_batch_size:
                raise ValueError(
                    f"micro_batch_size must divide batch_size, got {self.micro_batch_size} and {self.batch_size}"
                )
        at_least(1, report_every=self.report_every, checkpoint_every=self.checkpoint_every)
        within(0, 1, open_high=True, ema_decay=self.ema_decay)
        within(0, 1, label_dropout=self.label_dropout)
        if self.checkpoint_every % self.report_every:
            raise ValueError(
                f"checkpoint_every must be a multiple of report_every, got {self.checkpoint_every} and "
                f"{self.report_every}"
            )


class Batch(NamedTuple):
    """Clips, and the class of each where the student is told."""

    clips: Video
    labels: Labels | None


@dataclass(frozen=True)
class StepReport:
    """What one student update, and the critic updates before it, came to."""

    step: int  # updates done, this one included
    metrics: dict[str, Tensor]  # detached scalars


@dataclass
class TrainState:
    """All that changes while a cell trains. Draws come from streams derived by step, so none of them is here."""

    student: Denoiser
    critics: nn.Module
    config: TrainingSpec
    adaptive: AdaptiveSchedule | None = None
    step: int = 0
    flops_per_step: int = 0  # of torch's counter, measured on the first step

    def __post_init__(self) -> None:
        self.ema = Ema(self.student, self.config.ema_decay)
        self.optimizer = Optimizer(self.config.optimizer, self.student)
        trains_critics = any(p.requires_grad for p in self.critics.parameters())
        self.critic_optimizer = Optimizer(self.config.critic_optimizer, self.critics) if trains_critics else None

    @property
    def schedule(self) -> Schedule:
        """Under which levels are drawn: the student's own, or the one that adapts it."""
        return self.adaptive or self.student.spec.schedule

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint must hold; frozen critics are built again instead."""
        frozen = {name for name, p in self.critics.named_parameters() if not p.requires_grad}
        critics = {name: t for name, t in self.critics.state_dict().items() if name not in frozen}
        parts = {
            "student": self.student.state_dict(),
            "ema": self.ema.average.state_dict(),
            "critics": critics,
            "optimizer": self.optimizer.tensors(),
            "critic_optimizer": self.critic_optimizer.tensors() if self.critic_optimizer else {},
            "adaptive": {"error": self.adaptive.error} if self.adaptive else {},
        }
        return {f"{part}/{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}

    def load(self, step: int, flops_per_step: int, tensors: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            part, name = key.split("/", 1)
            parts.setdefault(part, {})[name] = tensor
        self.step, self.flops_per_step = step, flops_per_step
        self.student.load_state_dict(parts["student"])
        self.ema.average.load_state_dict(parts["ema"])
        self.critics.load_state_dict(parts.get("critics", {}), strict=False)
        self.optimizer.load(parts["optimizer"])
        if self.critic_optimizer:
            self.critic_optimizer.load(parts["critic_optimizer"])
        if self.adaptive:
            self.adaptive.error = parts["adaptive"]["error"]


def train(
    state: TrainState, clips: Clips, *, method: Method, loss: Loss, seed: int, labels: Labels | None = None
) -> Iterator[StepReport]:
    """Train from state.step to the end: for each step loss.critic_updates critic updates, then one student update.

    Every update is on a batch of its own; every micro-batch of it, all of it where there is none, on a rollout.
    labels: the class of every clip, for a student that is told it.

    Raises:
        FloatingPointError: a loss or its gradient is not finite; says which, and at which step.
    """
    data = Batch(clips, labels)
    while state.step < state.config.num_steps:
        if state.step == 0:
            with FlopCounterMode(display=False, custom_mapping=ATTENTION_FLOPS) as counter:
                metrics = _step(state, data, method, loss, seed)
            state.flops_per_step = counter.get_total_flops()
        else:
            metrics = _step(state, data, method, loss, seed)
        state.step += 1
        yield StepReport(state.step, metrics)


def _step(state: TrainState, data: Batch, method: Method, loss: Loss, seed: int) -> dict[str, Tensor]:
    config, schedule = state.config, state.schedule
    metrics: dict[str, Tensor] = {}
    if isinstance(loss, StagedLoss):
        loss = loss.at_progress(state.step / config.num_steps)
    for k in range(loss.critic_updates):
        assert state.critic_optimizer is not None
        rng = stream(seed, f"critic_{k}", state.step)

        def judge(batch: Batch, rng: torch.Generator = rng) -> Scalar:
            assert isinstance(loss, CriticLoss)
            with torch.no_grad():
                rollout = _rollout(method, state.student, batch, schedule=schedule, rng=rng)
            return loss.critic_loss(rollout, batch.clips, state.critics, schedule=schedule, rng=rng)

        batch = draw_batch(data, state, rng)
        metrics["critic_loss"], metrics["critic_grad_norm"] = _update(
            state.critic_optimizer, judge, batch, state, "critic_loss"
        )
    rng = stream(seed, "student", state.step)
    seen: list[tuple[Tensor, ...]] = []

    def teach(batch: Batch) -> Scalar:
        rollout = _rollout(method, state.student, batch, schedule=schedule, rng=rng)
        if state.adaptive and rollout.target is not None:
            seen.append((rollout.t, rollout.x0_hat.detach(), rollout.target, rollout.counts))
        return loss.student_loss(rollout, batch.clips, state.critics, schedule=schedule, rng=rng)

    batch = draw_batch(data, state, rng)
    metrics["student_loss"], metrics["grad_norm"] = _update(state.optimizer, teach, batch, state, "student_loss")
    if state.adaptive and seen:
        state.adaptive.observe(*(torch.cat(parts) for parts in zip(*seen, strict=True)))
    state.ema.update(state.student, state.step)
    return metrics


def _update(
    optimizer: Optimizer, loss_on: Callable[[Batch], Scalar], batch: Batch, state: TrainState, name: str
) -> tuple[Tensor, Tensor]:
    """Step down the gradient of one loss by the parameters of one network, and of no other.

    Returns the loss, the mean over the micro-batches, and the norm of its gradient.
    """
    values: list[Tensor] = []
    gradients: list[Tensor] = []
    micro_batches = split(batch, state.config.micro_batch_size or state.config.batch_size)
    for micro_batch in micro_batches:
        value = loss_on(micro_batch)
        if not torch.isfinite(value):
            raise FloatingPointError(f"{name} is {value.item()} at step {state.step}")
        added = torch.autograd.grad(value / len(micro_batches), optimizer.parameters)
        gradients = [a + b for a, b in zip(gradients, added, strict=True)] if gradients else list(added)
        values.append(value.detach())
    value = torch.stack(values).mean()
    factor = optimizer.spec.rate_at(state.step, state.config.num_steps)
    try:
        return value, optimizer.update(gradients, factor=factor).detach()
    except FloatingPointError as error:
        raise FloatingPointError(f"{name} is {value.item():g} at step {state.step}, but {error}") from error


def _rollout(
    method: Method, student: Denoiser, batch: Batch, *, schedule: Schedule, rng: torch.Generator
) -> Rollout:
    """Of the student as it is told the classes of its clips; so is whatever network its frames are shown to."""
    labels = batch.labels
    if labels is None:
        return method.rollout(student, batch.clips, schedule=schedule, rng=rng)
    rollout = method.rollout(student.given(labels), batch.clips, schedule=schedule, rng=rng)

    def told(judge: Judge) -> Judge:
        def ask(network: Any, x_t: Video, t: NoiseLevel) -> Tensor:
            return judge(network.given(labels), x_t, t)

        return ask

    return replace(rollout, judge=told(rollout.judge), in_context=told(rollout.in_context))


def draw_batch(data: Batch, state: TrainState, rng: torch.Generator) -> Batch:
    """Clips drawn with replacement; where they have classes, some of them hidden."""
    config = state.config
    drawn = torch.randint(len(data.clips), (config.batch_size,), generator=rng)
    if data.labels is None:
        return Batch(data.clips[drawn], None)
    hidden = torch.rand(config.batch_size, generator=rng) < config.label_dropout
    none = state.student.spec.backbone.num_classes  # the label of a clip whose class is not told
    return Batch(data.clips[drawn], data.labels[drawn].masked_fill(hidden, none))


def split(batch: Batch, size: int) -> list[Batch]:
    """Micro-batches of `size` clips."""
    clips = batch.clips.split(size)
    labels = batch.labels.split(size) if batch.labels is not None else [None] * len(clips)
    return [Batch(*part) for part in zip(clips, labels, strict=True)]
