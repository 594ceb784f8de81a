"""The exact log density of what a neural student samples, for students of one pixel that have one.

A denoiser trained on data stands for the law at the end of its probability flow, whose density follows from the
trace of the flow's Jacobian. A causal generator of a single step is a map of the line at every frame, once the
frames before it are given: its density follows from the slope of the map. Other generators have none at hand.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.schedule import FlowMatching
from pipeline.diffusion.trajectory import Heun
from pipeline.interfaces import Denoise
from pipeline.models.denoiser import Denoiser
from pipeline.streams import noise_like

Paths = Float[Tensor, "N F"]  # clips of one pixel
MIN_LEVEL = 1e-3  # where a flow ends: frames with noise of a thousandth, too little to tell from clean ones
NUM_FLOW_STEPS = 10  # of Runge and Kutta's rule, four calls each
NUM_SAMPLING_STEPS = 16
RULE = (1 / 6, 1 / 3, 1 / 3, 1 / 6)  # of Runge and Kutta
REACH, NUM_NODES, CROWDING = 8.0, 65, 2.5  # of the grid of noise on which a map of the line is known
AT_ONCE = 2**15  # clips that a network is asked about in one call
FLAT = 1e-12  # rise of a map between two nodes at which it has the same value
LOG_2PI = math.log(2 * math.pi)


def flow_sampler(num_frames: int, attention: str) -> Sampler:
    """The probability flow, frame after frame or all frames together, as finely as its density is integrated."""
    return Sampler(num_steps=NUM_SAMPLING_STEPS, step=Heun(), chunk_len=num_frames if attention == "full" else 1)


def sample(student: Denoiser, sampler: Sampler, num_paths: int, num_frames: int, rng: torch.Generator) -> Paths:
    """Clips of one pixel by the procedure with which everything is sampled."""
    noise = noise_like(torch.zeros(num_paths, num_frames, 1, 1, 1), rng)
    with torch.no_grad():
        made = generate(student, noise, schedule=student.spec.schedule, sampler=sampler, rng=rng)
    return made.x0_hat[:, :, 0, 0, 0]


def flow_log_density(student: Denoiser, x: Paths) -> Tensor:
    """ln p(x) under the probability flow of a denoiser: ln N(x_1) + integral of the divergence of the velocity.

    Causal: (N, F), of every frame given the clean ones before it, each the end of a flow on the line. Full
    attention: (N, 1), of whole clips. dx/dt = (x - D(x, t)) / t of the straight path, from MIN_LEVEL up by Runge
    and Kutta's rule. arXiv:2011.13456, eq. 39.

    Raises:
        ValueError: a student of another schedule than the straight path.
    """
    if student.spec.schedule != FlowMatching():
        raise ValueError(f"schedule must be {FlowMatching()} for an exact density, got {student.spec.schedule}")
    if student.spec.backbone.attention == "causal":
        velocity, trace = _velocity(lambda x_t, t: student.beside(x_t, t, _as_clips(x))), _own_slopes
    else:
        velocity, trace = _velocity(student), _divergence
    x_t, grown = x, torch.zeros((), dtype=x.dtype)
    step = (1 - MIN_LEVEL) / NUM_FLOW_STEPS
    for number in range(NUM_FLOW_STEPS):
        t, slopes, stretches = MIN_LEVEL + number * step, [], []
        for ahead in (0.0, 0.5, 0.5, 1.0):
            moved = x_t + ahead * step * slopes[-1] if slopes else x_t
            slope, stretch = trace(velocity, moved, min(1.0, t + ahead * step))
            slopes.append(slope)
            stretches.append(stretch)
        x_t = x_t + step * sum(w * slope for w, slope in zip(RULE, slopes, strict=True))
        grown = grown + step * sum(w * stretch for w, stretch in zip(RULE, stretches, strict=True))
    end = -(x_t.square() + LOG_2PI) / 2
    return grown + (end if grown.shape == end.shape else end.sum(1, keepdim=True))


def one_step_log_density(student: Denoiser, x: Paths) -> Tensor:
    """ln p(x_f | x_<f), (N, F), of a causal generator whose frame is G(z; x_<f): ln of the sum of N(z) / |G'(z)|.

    The sum is over all z that give x_f. G is taken as linear between the nodes of a grid, and beyond them; the
    density of this map integrates to 1.
    """
    u = torch.linspace(-CROWDING, CROWDING, NUM_NODES, dtype=torch.float64)
    z = (REACH / math.sinh(CROWDING) * u.sinh()).to(x.dtype)  # close where the noise is likely
    parts = [_of_a_map(_on_grid(student, part, z), z, part) for part in x.split(max(1, AT_ONCE // NUM_NODES))]
    return torch.cat(parts)


def _on_grid(student: Denoiser, x: Paths, z: Tensor) -> Float[Tensor, "N K F"]:
    """G(z_k; x_<f) of every path, node and frame."""
    context = _as_clips(x.repeat_interleave(len(z), 0))
    noise = _as_clips(z.repeat(len(x))[:, None].expand(-1, x.shape[1]))
    with torch.no_grad():
        made = student.beside(noise, torch.ones_like(noise[:, :, 0, 0, 0]), context)
    return made.reshape(len(x), len(z), -1)


def _of_a_map(values: Float[Tensor, "N K F"], z: Tensor, x: Paths) -> Paths:
    """ln of the density at x of a piecewise linear map of the standard normal."""
    left, right = values[:, :-1].double(), values[:, 1:].double()
    rise = torch.where(right == left, FLAT, right - left)
    share = (x[:, None] - left) / rise
    inside = (share >= 0) & (share < 1)
    inside[:, 0] |= share[:, 0] < 0
    inside[:, -1] |= share[:, -1] >= 1
    width = z.double().diff()[:, None]
    at = z[:-1, None] + share * width
    log_density = -(at.square() + LOG_2PI) / 2 + width.log() - rise.abs().log()
    return torch.logsumexp(log_density.masked_fill(~inside, -math.inf), 1)


def _as_clips(x: Paths) -> Tensor:
    return x[:, :, None, None, None]


Velocity = Callable[[Paths, float], Paths]


def _velocity(denoise: Denoise) -> Velocity:
    def velocity(x: Paths, t: float) -> Paths:
        return (x - denoise(_as_clips(x), torch.full_like(x, t))[:, :, 0, 0, 0]) / t

    return velocity


def _own_slopes(velocity: Velocity, x: Paths, t: float) -> tuple[Paths, Paths]:
    """The velocity, and how that of every frame changes with this frame alone: it sees no other noised frame."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        slope = velocity(x, t)
        (own,) = torch.autograd.grad(slope.sum(), x)
    return slope.detach(), own


def _divergence(velocity: Velocity, x: Paths, t: float) -> tuple[Paths, Tensor]:
    """The velocity, and the trace of its Jacobian, (N, 1), by a backward pass a frame."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        slope = velocity(x, t)
        rows = [torch.autograd.grad(slope[:, f].sum(), x, retain_graph=True)[0][:, f] for f in range(x.shape[1])]
    return slope.detach(), torch.stack(rows, 1).sum(1, keepdim=True)
