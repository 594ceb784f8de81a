"""The flow map: its boundary by construction, the grids of consistency models, and both ways along the flow."""

import pytest
import torch

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.flow_map import Discretisation, clean_end, draw_steps, lead_to, noisy_end
from pipeline.diffusion.schedule import Cosine, Ddpm, EdmSampling, EdmTraining, FlowMatching
from pipeline.diffusion.trajectory import Euler

EDM = EdmSampling()
EXPLODING = FlowMatching(family="variance_exploding")


def video(rng, batch=3, num_frames=4):
    return torch.randn(batch, num_frames, 1, 2, 2, generator=rng, dtype=torch.float64)


def sigmas(grid):
    t = grid.levels(EXPLODING)
    return (t / (1 - t)).tolist()


@pytest.mark.parametrize("family", ["variance_preserving", "variance_exploding", "flow"])
def test_the_boundary_is_the_identity_whatever_the_network_says(family, rng):
    """In all segments, and whatever levels the other frames have."""
    schedule, x = Cosine(family=family), video(rng)
    boundary = torch.tensor([[0.0, 0.25, 0.25, 0.5]]).double().expand(3, 4)
    t = boundary + torch.tensor([[0.0, 0.0, 0.1, 0.0]])
    found = lead_to(schedule, x, t, boundary, lambda x_t, _: 7 * x_t + 3, rng)
    at_it = t[0] == boundary[0]
    assert torch.equal(found[:, at_it], x[:, at_it])
    assert (found[:, ~at_it] - x[:, ~at_it]).abs().min() > 1e-3


def test_a_step_to_the_boundary_is_that_of_multistep_consistency_models(rng):
    """y + (b - s) / s (y - x0_hat), and x0_hat where the boundary is clean."""
    x, x0_hat = video(rng), video(rng)
    t, boundary = torch.full((3, 4), 0.6).double(), torch.full((3, 4), 0.3).double()
    s, b = 0.6 / 0.4, 0.3 / 0.7
    found = lead_to(EXPLODING, x, t, boundary, lambda *_: x0_hat, rng)
    assert torch.allclose(found, x + (b - s) / s * (x - x0_hat), atol=1e-12)
    clean = lead_to(EXPLODING, x, t, torch.zeros_like(t), lambda *_: x0_hat, rng)
    assert torch.allclose(clean, x0_hat, atol=1e-12)


def test_the_levels_are_those_of_the_spacing_under_any_schedule():
    assert sigmas(Discretisation(18, spacing=EDM))[::-1][:3] == pytest.approx([80, 57.5859847, 40.785572], rel=1e-6)
    assert sigmas(Discretisation(18, spacing=EDM))[0] == pytest.approx(0.002, rel=1e-9)
    assert Discretisation(5).levels(FlowMatching()).tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    log_snr = Cosine().log_snr(Discretisation(9, spacing=EDM).levels(Cosine()))
    assert log_snr.tolist() == pytest.approx(EDM.log_snr(torch.linspace(0, 1, 9)).tolist(), abs=1e-5)


def test_levels_are_drawn_as_improved_consistency_training_draws_them():
    """p of erf differences for ln sigma ~ N(-1.1, 2^2) on EDM's levels, arXiv:2310.14189, section 3.4: N = 11."""
    grid = Discretisation(11, spacing=EDM, visits=EdmTraining(mean=2.2, std=4.0))
    expected = [0.0626329925, 0.18173698, 0.245501422, 0.213494447, 0.142446058]
    expected += [0.0806046217, 0.0410799062, 0.0195800922, 0.00894386841, 0.00397961221]
    assert grid.shares().tolist() == pytest.approx(expected, rel=1e-8)
    assert Discretisation(11, spacing=EDM).shares().tolist() == pytest.approx([0.1] * 10)


def test_steps_are_drawn_as_often_as_their_shares_say(rng):
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05]).double()
    count = torch.bincount(draw_steps(shares, torch.Size((2000, 10)), rng).flatten(), minlength=4)
    chi_squared = ((count - 20_000 * shares) ** 2 / (20_000 * shares)).sum().item()
    assert chi_squared < 16.3  # 3 degrees of freedom, p = .001


def test_the_square_root_curriculum_is_that_of_openai_consistency_models():
    """cm/script_util.py, start_scales 2, end_scales 200, 800,000 steps: at steps 0, 1e5, 4e5, 8e5."""
    grid = Discretisation(201, "square_root", 2)
    assert [grid.at_progress(step / 8e5).num_levels for step in (0, 1e5, 4e5, 8e5)] == [2, 72, 143, 201]


def test_the_doubling_curriculum_is_that_of_improved_consistency_training():
    grid = Discretisation(1281, "doubling", 11)
    counts = [grid.at_progress(stage / 8).num_levels for stage in range(8)]
    assert counts == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert grid.at_progress(0.1249).num_levels == 11
    assert grid.at_progress(0.9999).num_levels == 1281
    assert Discretisation(42, "doubling", 11).at_progress(0.999).num_levels == 42
    assert Discretisation(18).at_progress(0.5) == Discretisation(18)


def test_every_step_leads_to_the_lowest_level_of_its_segment():
    assert Discretisation(9, segments=4).boundaries().tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert Discretisation(9).boundaries().tolist() == [0] * 8
    assert Discretisation(9, segments=8).boundaries().tolist() == list(range(8))
    assert Discretisation(8, segments=3).boundaries().tolist() == [0, 0, 0, 3, 3, 5, 5]


@pytest.mark.parametrize("spacing", [FlowMatching(shift=3.0), EDM])
def test_the_segments_are_the_steps_of_a_sampler_of_the_same_spacing(spacing):
    """Whose Euler steps then are the consistency functions of the segments, one after the other."""
    grid, schedule = Discretisation(13, spacing=spacing, segments=3), FlowMatching()
    levels = grid.levels(schedule)
    tops = levels[[12, 8, 4]]
    assert Sampler(num_steps=3, step=Euler(), schedule=spacing).levels(schedule) == pytest.approx(tops.tolist())
    assert levels[grid.boundaries().unique()].tolist() == pytest.approx(
        [levels[0].item(), *tops[1:].flip(0).tolist()]
    )


def test_frames_of_one_level_share_a_level_again_and_the_context_keeps_its_own(rng):
    t = torch.tensor([[0.0, 0.3, 0.3, 0.7, 1.0]]).repeat(400, 1)
    moves = torch.tensor([[False, True, True, True, False]]).repeat(400, 1)
    grid = Discretisation(9, segments=2)
    pair = grid.draw(t, moves, schedule=FlowMatching(), rng=rng)
    assert all(torch.equal(level[~moves], t[~moves]) for level in pair)
    upper, lower, boundary = ((level[:, 1:4] * 8).round() for level in pair)
    assert torch.equal(upper - lower, torch.ones_like(upper))
    assert torch.equal(boundary, torch.where(lower >= 4, 4.0, 0.0))
    assert torch.equal(upper[:, 0], upper[:, 1])
    assert len(torch.stack([upper[:, 0], upper[:, 2]], 1).unique(dim=0)) == 64  # independent of each other
    assert set(upper.unique().tolist()) == set(range(1, 9))


class TestAlongTheFlow:
    """Of data N(m, v), whose flow is x_t = alpha m + (sqrt(alpha^2 v + sigma^2) / sqrt(v)) (x_0 - m)."""

    mean, variance = 0.4, 0.3

    def denoise(self, schedule):
        def answer(x_t, t):
            alpha, sigma = schedule.at(t)
            gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
            return self.mean + gain * (x_t - alpha * self.mean)

        return answer

    def noisy(self, schedule, x0, t):
        alpha, sigma = schedule.at(t)
        spread = (alpha**2 + sigma**2 / self.variance).sqrt()
        return alpha * self.mean + spread * (x0 - self.mean)

    def setup(self, rng):
        x0 = video(rng)
        t = torch.tensor([[0.0, 0.3, 0.8, 1.0]], dtype=torch.float64).repeat(3, 1)
        return x0, t, t > 0

    def errors(self, rng, way):
        schedule = FlowMatching()
        x0, t, moves = self.setup(rng)
        x_t = self.noisy(schedule, x0, t)

        def error(num_steps, solver):
            denoise = self.denoise(schedule)
            options = {"solver": solver, "num_steps": num_steps}
            if way == "up":
                return (noisy_end(schedule, x0, t, x_t, moves, denoise, **options) - x_t).abs().max()
            return (clean_end(schedule, x_t, t, moves, denoise, **options, rng=rng) - x0).abs().max()

        return error

    @pytest.mark.parametrize(
        ("way", "solver", "order"),
        [("up", "euler", 1), ("up", "heun", 2), ("down", "euler", 1), ("down", "heun", 2)],
    )
    def test_the_end_is_exact_up_to_the_order_of_the_solver(self, way, solver, order, rng):
        error = self.errors(rng, way)
        coarse, fine = error(40, solver), error(80, solver)
        assert coarse < 0.15
        assert (coarse / fine).log2().item() == pytest.approx(order, abs=0.25)

    def test_the_context_stays_where_it_is(self, rng):
        schedule = FlowMatching()
        x0, t, _ = self.setup(rng)
        x_t = self.noisy(schedule, x0, t)
        moves = torch.tensor([[False, True, True, False]]).repeat(3, 1)
        down = clean_end(schedule, x_t, t, moves, self.denoise(schedule), solver="heun", num_steps=3, rng=rng)
        up = noisy_end(schedule, x0, t, x_t, moves, self.denoise(schedule), solver="heun", num_steps=3)
        for end in (down, up):
            assert torch.equal(end[~moves], x_t[~moves])
            assert end.isfinite().all()

    def test_frames_are_asked_at_levels_in_proportion(self, rng):
        asked = []

        def denoise(x_t, t):
            asked.append(t[0].tolist())
            return torch.zeros_like(x_t)

        _, t, moves = self.setup(rng)
        clean_end(FlowMatching(), video(rng), t, moves, denoise, solver="euler", num_steps=2, rng=rng)
        noisy_end(FlowMatching(), video(rng), t, video(rng), moves, denoise, solver="euler", num_steps=2)
        assert asked[0] == pytest.approx([0.0, 0.3, 0.8, 1.0])
        assert asked[1] == asked[2] == pytest.approx([0.0, 0.15, 0.4, 0.5])
        assert len(asked) == 3


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_levels": 1}, "num_levels must be at least 2, got 1"),
        ({"curriculum": "cubic"}, "curriculum must be one of constant, square_root, doubling, got 'cubic'"),
        ({"segments": 0}, "segments must be at least 1, got 0"),
        (
            {"num_levels": 9, "segments": 9},
            "segments must be at most the steps of the grid: segments=9, 8 steps",
        ),
        (
            {"num_levels": 41, "curriculum": "doubling", "first_num_levels": 5, "segments": 8},
            "segments must be at most the steps of the grid: segments=8, 4 steps",
        ),
        (
            {"num_levels": 9, "curriculum": "doubling", "first_num_levels": 11},
            r"first_num_levels must be in \[2, 9\], got 11",
        ),
        ({"curriculum": "doubling"}, "first_num_levels must be given where the curriculum is not constant"),
        ({"first_num_levels": 11}, "first_num_levels must be given where the curriculum is not constant, and only"),
        ({"visits": EDM}, r"log_snr must be in \[-8.7641, 12.4292\], the range of EdmSampling"),
    ],
)
def test_a_grid_refuses_impossible_parameters(fields, says):
    with pytest.raises(ValueError, match=says):
        Discretisation(**fields)


def test_a_grid_refuses_a_table_that_is_coarser():
    with pytest.raises(ValueError, match="the levels of a grid must rise: num_levels=41"):
        Discretisation(41).levels(Ddpm(num_levels=10))
