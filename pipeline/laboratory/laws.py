"""The law of the frames that a loss judges, for every method: exactly, at the student's present parameters."""

import itertools
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
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
    patterns = torch.tensor(list(itertools.product((False, True), repeat=num_frames)))
    probability = torch.tensor([first] + [every] * (num_frames - 1), dtype=torch.float64)
    shares = torch.where(patterns, probability, 1 - probability).prod(1)[:, None] * data.shares
    shares[0] = torch.zeros_like(data.shares)
    shares[0, 0] = (1 - probability).prod()  # where no frame is clean, data have no part
    pattern, component = shares.nonzero(as_tuple=True)
    means, loadings = _of_patterns(patterns[pattern], chain, data.means[component], data.factors[component])
    return GaussianMixture(shares[pattern, component], means, torch.linalg.cholesky(loadings @ loadings.mT))


def _of_patterns(
    is_clean: Bool[Tensor, "N F"],
    chain: Chain,
    data_means: Float[Tensor, "N F"],
    data_factors: Float[Tensor, "N F F"],
) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N F 2*F"]]:
    """Means, and loadings on the noise of data and that of the student."""
    nothing = torch.zeros_like(data_factors)
    entering = torch.eye(is_clean.shape[1], dtype=torch.float64).expand_as(nothing)
    of_data, of_student = torch.cat([data_factors, nothing], 2), torch.cat([nothing, entering], 2)
    mean, row = chain.m1.expand(len(is_clean)), chain.s1.abs() * of_student[:, 0]
    means, rows = [], []
    for f, clean in enumerate(is_clean.T):
        if f > 0:
            mean, row = chain.next_mean(means[-1]), chain.c * rows[-1] + chain.s2.abs() * of_student[:, f]
        means.append(torch.where(clean, data_means[:, f], mean))
        rows.append(torch.where(clean[:, None], of_data[:, f], row))
    return torch.stack(means, 1), torch.stack(rows, 1)
