"""The law of the frames that a loss judges, for every method: exactly, at the student's present parameters."""

import itertools
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.data.processes_mixture import GaussianMixture, gaussian
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.hidden_noise import HiddenNoise
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.method import Method
from pipeline.methods.self_forcing import SelfForcing
from pipeline.models.linear_gaussian import Chain


def chain_law(chain: Chain, num_frames: int) -> GaussianMixture:
    """The law of a student's own clips, with the gradient of its parameters."""
    return gaussian(chain.mean(num_frames), chain.factor(num_frames))


def detached(chain: Chain) -> Chain:
    """The same numbers without their gradient."""
    return replace(chain, **{name: value.detach() for name, value in vars(chain).items()})


def judged_law(method: Method, chain: Chain, data: GaussianMixture) -> GaussianMixture:
    """The law of x0_hat under a method whose student makes frames in one step.

    The student's own clips, with what its sampler adds; under teacher forcing they have the conditionals that are
    judged. Under diffusion forcing a push-forward of data: frames that were left clean, and between them those that
    the student made.
    """
    if isinstance(method, SelfForcing) and isinstance(method.sampler.step, HiddenNoise):
        hidden = torch.tensor(method.sampler.step.std, dtype=torch.float64)
        chain = replace(chain, s1=torch.hypot(chain.s1, hidden), s2=torch.hypot(chain.s2, hidden))
    if isinstance(method, DiffusionForcing):
        assert isinstance(method.noise_levels, Independent)
        return pushed_forward(method.noise_levels, chain, data)
    return chain_law(chain, data.num_frames)


def pushed_forward(levels: Independent, chain: Chain, data: GaussianMixture) -> GaussianMixture:
    """A component for every set of frames that are left clean and, where there are any, every one of data."""
    num_frames, every = data.num_frames, levels.clean_probability
    first = every if levels.first_clean_probability is None else levels.first_clean_probability
    shares, means, factors = [], [], []
    for pattern in itertools.product((False, True), repeat=num_frames):
        share = (first if pattern[0] else 1 - first) * every ** sum(pattern[1:])
        share *= (1 - every) ** (num_frames - 1 - sum(pattern[1:]))
        if share == 0:
            continue
        for k in range(data.num_components if any(pattern) else 1):
            mean, loading = _of_pattern(pattern, chain, data.means[k], data.factors[k])
            shares.append(share * (data.shares[k].item() if any(pattern) else 1.0))
            means.append(mean)
            factors.append(torch.linalg.cholesky(loading @ loading.mT))
    return GaussianMixture(torch.tensor(shares, dtype=torch.float64), torch.stack(means), torch.stack(factors))


def _of_pattern(
    is_clean: tuple[bool, ...], chain: Chain, data_mean: Tensor, data_factor: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean, and loadings (F, 2 F) on the noise of data and that of the student."""
    num_frames = len(is_clean)
    noise = torch.eye(num_frames, dtype=torch.float64)
    means, rows = [], []
    for f, clean in enumerate(is_clean):
        if clean:
            mean, row = data_mean[f], torch.cat([data_factor[f], 0 * noise[f]])
        elif f == 0:
            mean, row = chain.m1, torch.cat([0 * noise[f], chain.s1.abs() * noise[f]])
        else:
            mean = chain.next_mean(means[-1])
            row = chain.c * rows[-1] + torch.cat([0 * noise[f], chain.s2.abs() * noise[f]])
        means.append(mean)
        rows.append(row)
    return torch.stack(means), torch.stack(rows)
