"""How far a student's clean clips are from data, and which of the modes they keep."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from pipeline.data.processes_mixture import GaussianMixture
from pipeline.laboratory.divergences import (
    FORWARD_KL,
    JENSEN_SHANNON,
    REVERSE_KL,
    Clips,
    Divergence,
    noised_student,
    value_of,
)
from pipeline.laboratory.quadrature import CHECK, clean, normal_nodes
from pipeline.models.linear_gaussian import Chain, Form

NARROW = 1e-5  # standard deviation below which a law is none, and has no divergence


@dataclass(frozen=True)
class Reached:
    """Divergences in nats, none where a standard deviation is 0. kept: the share of each component of data."""

    forward_kl: float | None
    reverse_kl: float | None
    jensen_shannon: float | None
    kept: tuple[float, ...]


class Standing:
    """Compares students with data; what does not depend on the student is computed once."""

    def __init__(self, data: GaussianMixture, *, num_pixels: int = 1) -> None:
        self.data, self.num_pixels = data, num_pixels
        is_gaussian = data.num_components == 1
        levels = clean(data.num_frames)
        self._quadratic = Clips(data, levels, normal_nodes(data.num_frames, CHECK, quadratic=is_gaussian))
        nodes = normal_nodes(data.num_frames, CHECK)
        self._clips = Clips(data, levels, nodes) if is_gaussian else self._quadratic

    def of(self, form: Form, parameters: Mapping[str, float]) -> Reached:
        """Of a student by its parameters."""
        values = [parameters[name] for name in form.names]
        chain = form.chain(*torch.tensor(values, dtype=torch.float64))
        stds = [abs(parameters[name]) for name in form.names if name.startswith("s")]
        if min(stds) < NARROW:
            return Reached(None, None, None, self._kept(chain))
        forward, reverse = (self._divergence(d, self._quadratic, chain) for d in (FORWARD_KL, REVERSE_KL))
        return Reached(forward, reverse, self._divergence(JENSEN_SHANNON, self._clips, chain), self._kept(chain))

    def _divergence(self, divergence: Divergence, clips: Clips, chain: Chain) -> float:
        return self.num_pixels * value_of(divergence, clips, chain).item()

    def _kept(self, chain: Chain) -> tuple[float, ...]:
        clips = self._quadratic
        x = noised_student(chain, clips.levels).points(clips.nodes.z)[0]
        posterior = self.data.posterior(x[:, 0])
        return tuple((clips.nodes.weights[:, None] * posterior).sum(0).tolist())
