"""Frame by frame against the same by matrices: answers and gradients, clean frames and pure noise among them."""

import itertools
import math

import pytest
import torch

from pipeline.data.processes_mixture import GaussianMixture, by_pixel, from_pixels
from pipeline.diffusion.noise_levels import Independent
from pipeline.diffusion.schedule import FlowMatching
from pipeline.laboratory.closed_forms import (
    denoised,
    denoised_beside,
    denoised_causally,
    log_density,
    log_density_beside,
)
from pipeline.laboratory.denoisers import ExactDenoiser, LogRatio
from pipeline.laboratory.laws import pushed_forward
from pipeline.laboratory.students import DenoisingStudent
from pipeline.models.linear_gaussian import Chain, LinearGaussianSpec, LinearGaussianStudent

TOLERANCE = 1e-9
SHAPE = (2, 1, 2)  # of a frame
SIZES = [(1, 1), (3, 1), (1, 4), (3, 2), (2, 3)]  # components and frames
of_any_size = pytest.mark.parametrize(("num_components", "num_frames"), SIZES)


def mixture(num_components, num_frames, *, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shares = torch.rand(num_components, generator=rng, dtype=torch.float64) + 0.2
    means = torch.randn(num_components, num_frames, generator=rng, dtype=torch.float64)
    factors = torch.randn(num_components, num_frames, num_frames, generator=rng, dtype=torch.float64).tril(-1)
    stds = torch.rand(num_components, num_frames, generator=rng, dtype=torch.float64) + 0.3
    parts = (shares / shares.sum(), means, factors + torch.diag_embed(stds))
    return GaussianMixture(*(part.requires_grad_() for part in parts))


def frames_and_levels(num_frames, *, seed=1):
    """Clips at levels of every frame's own: some all clean, some of pure noise, some of both."""
    rng = torch.Generator().manual_seed(seed)
    x_t, context = torch.randn(2, 9, num_frames, *SHAPE, generator=rng, dtype=torch.float64)
    t = torch.rand(9, num_frames, generator=rng, dtype=torch.float64)
    t[0], t[1], t[2, 0], t[3, -1], t[4, 0], t[5, -1] = 0, 1, 0, 0, 1, 1
    return x_t.requires_grad_(), t, context


def coefficients(t):
    """For a video, and for its pixels."""
    at = FlowMatching().at(t)
    return at, tuple(c[:, None, None, None, :, 0, 0, 0] for c in at)


def assert_same(found, expected, law, x_t):
    """Values, and the gradients of a random sum of them."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < TOLERANCE
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inputs = [x_t, law.shares, law.means, law.factors]
    for mine, theirs in zip(*(gradients(weights, y, inputs) for y in (found, expected)), strict=True):
        assert (mine - theirs).abs().max() < TOLERANCE * (1 + theirs.abs().max())


def gradients(weights, values, inputs):
    """Along shares that sum to 1, and of a factor its lower triangle."""
    total = (weights * values).sum()
    frames, shares, means, factors = torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True)
    return frames, shares - shares.mean(), means, factors.tril()


@of_any_size
def test_denoised_frames_are_those_of_the_mixture(num_components, num_frames):
    law, (x_t, t, _) = mixture(num_components, num_frames), frames_and_levels(num_frames)
    at, levels = coefficients(t)
    assert_same(denoised(law, x_t, at), from_pixels(law.denoised(by_pixel(x_t), *levels)), law, x_t)


@of_any_size
def test_frames_denoised_causally_know_no_later_ones(num_components, num_frames):
    law, (x_t, t, _) = mixture(num_components, num_frames), frames_and_levels(num_frames)
    at, levels = coefficients(t)
    expected = [
        law.first(n).denoised(by_pixel(x_t)[..., :n], *(c[..., :n] for c in levels))[..., -1]
        for n in range(1, num_frames + 1)
    ]
    assert_same(denoised_causally(law, x_t, at), torch.stack(expected, 1), law, x_t)


@of_any_size
def test_log_density_is_that_of_the_noised_mixture(num_components, num_frames):
    law, (x_t, t, _) = mixture(num_components, num_frames), frames_and_levels(num_frames)
    at, levels = coefficients(t)
    assert_same(log_density(law, x_t, at), law.noised(*levels).log_density(by_pixel(x_t)), law, x_t)


def after_clean(x_t, context, t, n):
    """Frame number n, noised, after the clean ones before it, as points at levels of their own."""
    clip = torch.cat([context[:, : n - 1], x_t[:, n - 1 : n]], 1)
    _, levels = coefficients(torch.cat([torch.zeros_like(t[:, : n - 1]), t[:, n - 1 : n]], 1))
    return by_pixel(clip), levels


@of_any_size
def test_frames_beside_clean_ones_are_those_of_the_mixture(num_components, num_frames):
    law, (x_t, t, context) = mixture(num_components, num_frames), frames_and_levels(num_frames)
    means, densities = [], []
    for n in range(1, num_frames + 1):
        points, levels = after_clean(x_t, context, t, n)
        means.append(law.first(n).denoised(points, *levels)[..., -1])
        known = law.first(n - 1).log_density(points[..., :-1]) if n > 1 else 0.0
        densities.append(law.first(n).noised(*levels).log_density(points) - known)
    at, _ = coefficients(t)
    assert_same(denoised_beside(law, x_t, at, context), torch.stack(means, 1), law, x_t)
    assert_same(log_density_beside(law, x_t, at, context), torch.stack(densities, 1), law, x_t)


def test_the_density_of_a_clean_frame_beside_clean_ones_is_the_conditional():
    law, (x, _, _) = mixture(3, 3), frames_and_levels(3)
    at, _ = coefficients(torch.zeros(9, 3, dtype=torch.float64))
    points = by_pixel(x)
    expected = [law.next_frame(points[..., :f]).log_prob(points[..., f]) for f in range(3)]
    assert (log_density_beside(law, x, at, x) - torch.stack(expected, 1)).abs().max() < TOLERANCE


def test_pure_noise_says_nothing():
    law, (x_t, _, _) = mixture(3, 3), frames_and_levels(3)
    at, _ = coefficients(torch.ones(9, 3, dtype=torch.float64))
    mean = law.mean[:, None, None, None]
    for ask in (denoised, denoised_causally):
        assert (ask(law, x_t, at) - mean).abs().max() < TOLERANCE


def test_the_log_ratio_is_that_of_the_densities():
    data, student = mixture(3, 2), mixture(2, 2, seed=5)
    x_t, t, context = frames_and_levels(2)
    at, _ = coefficients(t)
    critic = LogRatio(lambda: data, lambda: student)
    whole = log_density(data, x_t, at) - log_density(student, x_t, at)
    assert torch.equal(critic(x_t, t), whole.sum((1, 2, 3)))
    beside = log_density_beside(data, x_t, at, context) - log_density_beside(student, x_t, at, context)
    assert torch.equal(critic.beside(x_t, t, context), beside.sum((2, 3, 4)))


def test_attention_says_which_frames_a_denoiser_sees():
    x_t, t, _ = frames_and_levels(3)
    values = {"m1": 0.5, "s1": 1.1, "c": 0.4, "m2": 0.1, "s2": 0.6}
    own = LinearGaussianStudent(LinearGaussianSpec("frame_by_frame", 3), **values)
    full, causal = (DenoisingStudent(own, attention) for attention in ("full", "causal"))
    assert (full(x_t, t) - own(x_t, t)).abs().max() < TOLERANCE
    assert (full(x_t, t) - ExactDenoiser(full.law)(x_t, t)).abs().max() < TOLERANCE
    changed = torch.cat([x_t[:, :2], x_t[:, 2:] + 1], 1)
    assert torch.equal(causal(x_t, t)[:, :2], causal(changed, t)[:, :2])
    assert (full(x_t, t) - full(changed, t))[:, :2].abs().max() > 0.01


@pytest.mark.parametrize("first", [None, 0.25])
def test_pushed_forward_frames_are_clean_or_follow_those_before(first):
    """The moments of the law against those of every pattern of clean frames, rolled out by hand."""
    data, levels = mixture(2, 3), Independent(clean_probability=0.4, first_clean_probability=first)
    chain = Chain(*(torch.tensor(value, dtype=torch.float64) for value in (0.3, -0.8, 0.6, 0.1, 0.5)))
    law = pushed_forward(levels, chain, data)
    mean, second, total = torch.zeros(3).double(), torch.zeros(3, 3).double(), 0.0
    for pattern in itertools.product((False, True), repeat=3):
        chances = [0.4 if first is None else first, 0.4, 0.4]
        share = math.prod(c if clean else 1 - c for c, clean in zip(chances, pattern, strict=True))
        # x = shift + on_data data + on_noise z
        shift, on_data, on_noise = torch.zeros(3).double(), torch.zeros(3, 3).double(), torch.zeros(3, 3).double()
        for f, clean in enumerate(pattern):
            if clean:
                on_data[f, f] = 1
            else:
                on_noise[f, f] = (chain.s2 if f else chain.s1).abs()
                shift[f] = chain.m2 if f else chain.m1
                for part in (shift, on_data, on_noise) if f else ():
                    part[f] += chain.c * part[f - 1]
        of_data = data.covariance + data.mean[:, None] * data.mean
        crossed = (on_data @ data.mean)[:, None] * shift
        moment = on_data @ of_data @ on_data.T + crossed + crossed.T + shift[:, None] * shift
        mean = mean + share * (shift + on_data @ data.mean)
        second = second + share * (moment + on_noise @ on_noise.T)
        total += share
    assert total == pytest.approx(1, abs=TOLERANCE)
    assert (law.mean - mean).abs().max() < TOLERANCE
    assert (law.covariance + law.mean[:, None] * law.mean - second).abs().max() < TOLERANCE
    assert law.num_components == 1 + 7 * data.num_components


@pytest.mark.parametrize(("attention", "whole"), [("full", denoised), ("causal", denoised_causally)])
def test_levels_that_all_clips_share_are_those_of_each(attention, whole):
    law, (x_t, t, context) = mixture(2, 3), frames_and_levels(3)
    shared = t[6].expand(9, -1)
    at, _ = coefficients(shared)
    student = ExactDenoiser(lambda: law, attention)
    assert (student(x_t, shared) - whole(law, x_t, at)).abs().max() < TOLERANCE
    beside = student.beside(x_t, shared, context)
    assert (beside - denoised_beside(law, x_t, at, context)).abs().max() < TOLERANCE
