"""Lines by level, and the flow of a Gaussian chain, answer as the denoisers and the flows that they stand for."""

from itertools import pairwise

import pytest
import torch

from pipeline.data.processes_mixture import gaussian
from pipeline.diffusion.autoregress import Sampler, generate
from pipeline.diffusion.flow_map import Discretisation
from pipeline.laboratory.denoisers import ExactDenoiser
from pipeline.laboratory.flow_map_students import GaussianFlow, LineByLevel
from pipeline.laboratory.laws import chain_law
from pipeline.models.linear_gaussian import Chain
from tests.processes import PROCESSES

GRID = Discretisation(8)
CHAIN = {"m1": 0.25, "s1": 0.75, "c": -0.5, "m2": 1.5, "s2": 0.625}  # numbers of float32, too
LAW = chain_law(Chain(*torch.tensor(list(CHAIN.values()), dtype=torch.float64)), 2)


def noise(rng, *shape):
    return torch.randn(*shape, 1, 1, 1, generator=rng, dtype=torch.float64)


class TestLineByLevel:
    """Begun on A, of one frame, and on D, of two."""

    def test_one_frame_begins_as_the_denoiser_of_a_gaussian(self, rng):
        law = PROCESSES["A"].law
        student = LineByLevel(GRID, law, "full")
        t, x_t = student.levels[1:, None], noise(rng, 7, 1)
        moments = gaussian(law.mean, law.covariance.sqrt())
        torch.testing.assert_close(student(x_t, t), ExactDenoiser(lambda: moments)(x_t, t))
        with pytest.raises(AssertionError, match="levels of its grid alone"):
            student(x_t, t - 0.01)

    def test_two_frames_begin_as_the_causal_denoiser_of_a_gaussian_in_either_context(self, rng):
        law = PROCESSES["D"].law
        moments = gaussian(law.mean, torch.linalg.cholesky(law.covariance))
        student = LineByLevel(GRID, law, "causal", noises_contexts=True)
        x_t, levels = noise(rng, 7, 2), student.levels[1:]
        exact = ExactDenoiser(lambda: moments, "causal")
        for context in (levels, 0 * levels):
            t = torch.stack([context, levels], 1)
            torch.testing.assert_close(student(x_t, t), exact(x_t, t))
        t, clean = torch.stack([levels, levels], 1), noise(rng, 7, 2)
        torch.testing.assert_close(student.beside(x_t, t, clean), exact.beside(x_t, t, clean))

    def test_the_lowest_level_leads_to_itself_and_other_contexts_are_not_met(self, rng):
        student = LineByLevel(GRID, PROCESSES["D"].law, "causal", noises_contexts=True)
        x_t, levels = noise(rng, 1, 2), student.levels
        torch.testing.assert_close(student(x_t, levels[None, [0, 0]]), x_t)
        torch.testing.assert_close(student(x_t, levels[None, [3, 0]])[:, 1], x_t[:, 1])
        with pytest.raises(AssertionError, match="a context is clean, or as noisy as the frame"):
            student(x_t, levels[None, [2, 3]])

    def test_what_it_makes_of_noise_is_the_chain_that_it_rolls_out(self, rng):
        student = LineByLevel(GRID, PROCESSES["D"].law, "causal")
        with torch.no_grad():
            student.first.gains[-1] = -0.75
            student.after_clean.gains[-1] = torch.tensor([-0.5, 0.625])
            student.first.shifts[-1], student.after_clean.shifts[-1] = 0.25, 1.5
        assert student.of_noise() == CHAIN
        z = noise(rng, 50, 2)
        made = generate(student, z, schedule=student.spec.schedule, sampler=Sampler(num_steps=1), rng=rng).x0_hat
        torch.testing.assert_close(made[:, 0], 0.25 - 0.75 * z[:, 0])
        torch.testing.assert_close(made[:, 1], -0.5 * made[:, 0] + 1.5 + 0.625 * z[:, 1])
        torch.testing.assert_close(student.beside(z, torch.ones(50, 2).double(), made), made)


class TestGaussianFlow:
    """That of N(0.25, 0.75^2), and of a chain after it."""

    def student(self, num_frames):
        student = GaussianFlow(num_frames, "causal")
        with torch.no_grad():
            for parameter, value in zip(student.values, CHAIN.values(), strict=False):
                parameter.fill_(value)
        return student

    @pytest.mark.parametrize("num_frames", [1, 2])
    def test_no_step_at_all_is_the_denoiser(self, rng, num_frames):
        t = torch.rand(50, num_frames, generator=rng, dtype=torch.float64)
        t[:10, 0] = 0  # a clean context
        x_t, student = noise(rng, 50, num_frames), self.student(num_frames)
        exact = ExactDenoiser(lambda: LAW.first(num_frames), "causal")
        torch.testing.assert_close(student(x_t, t, t), exact(x_t, t))

    def test_no_step_at_all_after_clean_frames_is_the_denoiser_of_the_next(self, rng):
        t, x_t, context = torch.rand(50, 2, generator=rng).double(), noise(rng, 50, 2), noise(rng, 50, 2)
        exact = ExactDenoiser(lambda: LAW).beside(x_t, t, context)
        torch.testing.assert_close(self.student(2).beside(x_t, t, context, t), exact)

    @pytest.mark.parametrize("level", [0.0, 0.3])
    def test_two_steps_lead_where_one_does(self, rng, level):
        """Of one frame, and of a second one whose context stays at its level."""
        x = noise(rng, 50, 2)

        def led(levels, context):
            z = x
            for h, r in pairwise(levels):
                t, end = torch.tensor([[context, h], [context, r]]).double()[:, None].expand(-1, 50, -1)
                x0_hat = self.student(2)(z, t, end)
                z = torch.cat([z[:, :1], (z - (h - r) / h * (z - x0_hat))[:, 1:]], 1)
            return z[:, 1]

        torch.testing.assert_close(led([1.0, 0.4, 0.0], level), led([1.0, 0.0], level))
        if level == 0:
            torch.testing.assert_close(led([1.0, 0.0], 0.0), -0.5 * x[:, 0] + 1.5 + 0.625 * x[:, 1])
        assert self.student(2).of_noise() == CHAIN
        assert self.student(1).of_noise() == {"m": 0.25, "s": 0.75}
