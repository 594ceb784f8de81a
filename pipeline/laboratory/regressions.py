"""Objectives of losses that regress the flow of data, in the context that each method gives its student."""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Normal

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.flows import along_the_flow, noise_of
from pipeline.laboratory.objective import Build, Value
from pipeline.laboratory.quadrature import Nodes, Precision, normal_nodes
from pipeline.models.linear_gaussian import Chain


@dataclass(frozen=True, eq=False)
class NextFrames:
    """Frames after contexts, and the noise of each: z = Phi^-1(F(x_f | x_<f)).

    On the line the flow keeps the order. Down from noise or up from data, it pairs the same frames with the same
    noise.
    """

    previous: Tensor | None  # (*N, 1), the last frame of the contexts; of the first frame there is none
    x: Tensor  # (*N, K), of every component of the law after a context
    noise: Tensor  # (*N, K)
    weights: Tensor  # (*N, K)

    @staticmethod
    def of(data: GaussianMixture, context: Tensor, weights: Tensor, z: Tensor) -> "NextFrames":
        """The last frame of data after contexts (*N, F - 1) of these weights (*N); z: (N), its nodes."""
        law = data.next_frame(context)
        shares, normals = law.mixture_distribution.probs, law.component_distribution
        assert isinstance(normals, Normal)
        x = normals.loc + normals.scale * z[:, None]
        previous = context[..., -1:] if context.shape[-1] else None
        return NextFrames(previous, x, noise_of(law, x), weights[..., None] * shares)

    def error(self, chain: Chain) -> Tensor:
        """E|x - x_hat|^2."""
        if self.previous is None:
            made = chain.m1 + chain.s1.abs() * self.noise
        else:
            made = chain.next_mean(self.previous) + chain.s2.abs() * self.noise
        return (self.weights * (self.x - made).square()).sum()


def after_true_frames_regressed(data: GaussianMixture, precision: Precision) -> Value:
    """Of teacher forcing: each frame beside its true context, the mean over frames."""
    frames = []
    for law, nodes in _prefixes(data, precision):
        known, last = nodes.z[:, :-1], nodes.z[:, -1]
        if law.num_frames == 1:
            frames.append(NextFrames.of(law, known, nodes.weights, last))
            continue
        weights = law.shares[:, None] * nodes.weights
        frames.append(NextFrames.of(law, law.first(law.num_frames - 1).points(known), weights, last))
    return lambda chain, _: torch.stack([frame.error(chain) for frame in frames]).mean()


def after_own_frames_regressed(data: GaussianMixture, precision: Precision) -> Value:
    """Of self forcing: the same beside the student's own frames, which carry no gradient. A field."""
    prefixes = _prefixes(data, precision)

    def value(chain: Chain, frozen: Chain) -> Tensor:
        errors = []
        for law, nodes in prefixes:
            rest = law.num_frames - 1
            known = nodes.z[:, :-1]
            context = frozen.mean(rest) + known @ frozen.factor(rest).mT if rest else known
            errors.append(NextFrames.of(law, context, nodes.weights, nodes.z[:, -1]).error(chain))
        return torch.stack(errors).mean()

    return value


def _prefixes(data: GaussianMixture, precision: Precision) -> list[tuple[GaussianMixture, Nodes]]:
    """The law of the frames up to each, and nodes of it."""
    return [(data.first(n), normal_nodes(n, precision)) for n in range(1, data.num_frames + 1)]


@dataclass(frozen=True, eq=False)
class Restoration:
    """Clips that the student restores: x is noise where a frame moves, and data where it does not."""

    x: Tensor  # (*N, F)
    targets: Tensor  # (*N, F)
    weights: Tensor  # (*N)
    moves: tuple[bool, ...]
    share: float  # of such clips

    @property
    def count(self) -> float:
        """Frames a clip that have a loss."""
        return self.share * sum(self.moves)

    def error(self, chain: Chain) -> Tensor:
        """share sum_f E|x_f - x_hat_f|^2 over the frames that move; the student goes on from what it has made."""
        total, previous = torch.zeros((), dtype=torch.float64), None
        for f, moves in enumerate(self.moves):
            z = self.x[..., f]
            if not moves:
                previous = z
                continue
            if previous is None:
                previous = chain.m1 + chain.s1.abs() * z
            else:
                previous = chain.next_mean(previous) + chain.s2.abs() * z
            total = total + (self.weights * (self.targets[..., f] - previous).square()).sum()
        return self.share * total


def regressed(cleaned: Independent | None, *, upwards: bool) -> Build:
    """Of clips in parallel: every frame is noise, or by the chances of `cleaned` some are clean context.

    Over the frames that have a loss, the mean. With clean frames the flow is a causal teacher's, which answers each
    frame by those up to it; without it is that of whole clips. upwards: the noise is where the flow takes data;
    else the targets are where it takes noise.
    """

    def build(data: GaussianMixture, precision: Precision) -> Value:
        if data.num_frames == 1:  # the same, and exact
            return after_true_frames_regressed(data, precision)
        nodes = normal_nodes(data.num_frames, precision, quadratic=data.num_components == 1)
        restorations = []
        for moves, share in _patterns(cleaned, data.num_frames):
            ends = _upwards if upwards else _downwards
            x, targets, weights = ends(data, nodes, moves, causal=cleaned is not None)
            restorations.append(Restoration(x, targets, weights, moves, share))
        count = sum(r.count for r in restorations)
        return lambda chain, _: torch.stack([r.error(chain) for r in restorations]).sum() / count

    return build


def _patterns(cleaned: Independent | None, num_frames: int) -> list[tuple[tuple[bool, ...], float]]:
    """Which frames are noise, and how often; clips without one have no loss."""
    if cleaned is None:
        return [((True,) * num_frames, 1.0)]
    every, first = cleaned.clean_probability, cleaned.first_clean_probability
    clean = [every if first is None else first] + [every] * (num_frames - 1)
    found = []
    for moves in itertools.product((True, False), repeat=num_frames):
        share = 1.0
        for moved, probability in zip(moves, clean, strict=True):
            share *= 1 - probability if moved else probability
        if any(moves) and share > 0:
            found.append((moves, share))
    return found


def _upwards(
    data: GaussianMixture, nodes: Nodes, moves: tuple[bool, ...], *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    targets = data.points(nodes.z)
    x = along_the_flow(data, targets, moves, start=0.0, stop=1.0, causal=causal)
    return x, targets, data.shares[:, None] * nodes.weights


def _downwards(
    data: GaussianMixture, nodes: Nodes, moves: tuple[bool, ...], *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    known = [f for f, moved in enumerate(moves) if not moved]
    x, weights = nodes.z[None], nodes.weights[None]
    if known:
        factors = torch.linalg.cholesky(data.covariances[:, known][:, :, known])
        law = GaussianMixture(data.shares, data.means[:, known], factors)
        x = x.repeat(data.num_components, 1, 1)
        x[..., known] = law.points(nodes.z[:, known])
        weights = data.shares[:, None] * nodes.weights
    return x, along_the_flow(data, x, moves, start=1.0, stop=0.0, causal=causal), weights
