"""Steps and levels against the numbers of diffusers."""

import pytest
import torch

from pipeline.diffusion import trajectory
from pipeline.diffusion.prediction import PREDICTIONS
from pipeline.diffusion.schedule import Ddpm, EdmSampling, add_noise
from pipeline.diffusion.trajectory import DDIM, DDPM, Euler


def det(frequency):
    """sin(frequency (i + 1)), the inputs of all of these numbers, as one clip of one frame."""
    return torch.sin(frequency * torch.arange(1, 5, dtype=torch.float64)).reshape(1, 1, 1, 1, 4)


def test_the_levels_of_edm_are_those_of_its_schedule():
    """diffusers EDM, 18 sigmas."""
    u = 1 - torch.arange(18, dtype=torch.float64) / 17
    sigmas = torch.exp(-EdmSampling().log_snr(u) / 2)
    first = [80.0, 57.5859833, 40.7855721, 28.3745842, 19.3524532, 12.9100828, 8.40093517, 5.31519461, 3.25682163]
    second = [
        1.92333984,
        1.08817065,
        0.585348129,
        0.29644227,
        0.139516473,
        0.0599473119,
        0.0229345188,
        0.00752802007,
    ]
    assert sigmas.tolist() == pytest.approx([*first, *second, 0.00200000009], rel=1e-6)


@pytest.mark.parametrize(
    ("prediction", "eta", "expected"),
    [
        ("eps", 0.0, [0.389899373, 1.32637286, 2.02955389, 1.25718212]),
        ("eps", 1.0, [0.668696702, 0.412681162, 2.33508277, 2.31362844]),
        ("x0", 0.0, [0.74558568, 1.02227175, 0.754909694, 0.216898292]),
        ("x0", 1.0, [1.22274947, -0.0610172749, 0.349568635, 0.693177581]),
        ("v", 0.0, [0.522081673, 0.915338099, 0.940540254, 0.440081239]),
        ("v", 1.0, [0.874597192, -0.227588058, 0.63872546, 1.04082978]),
    ],
)
def test_ddim_gives_the_numbers_of_diffusers(prediction, eta, expected, rng, monkeypatch):
    """DDIMScheduler, 1000 levels, from timestep 600 to 500; its timestep i is our level (i + 1) / 1000."""
    schedule = Ddpm()
    t, t_next = torch.tensor([[0.601]]).double(), torch.tensor([[0.501]]).double()

    def denoise(x_t, t):
        return PREDICTIONS[prediction].to_x0(det(1.3), x_t, schedule.at(t))

    monkeypatch.setattr(trajectory, "noise_like", lambda x, rng: det(2.1))  # noqa: ARG005
    steps = [DDIM(eta), *([DDPM()] if eta == 1 else [Euler()])]
    for step in steps:
        found = step(schedule, det(0.7), t, t_next, denoise, rng)
        assert found.flatten().tolist() == pytest.approx(expected, abs=5e-7)  # of float32


def test_noised_frames_and_their_velocity_are_those_of_diffusers():
    """DDPMScheduler, timestep 500 of 1000."""
    schedule, t = Ddpm(), torch.tensor([[0.501]]).double()
    x0, eps = det(0.7), det(1.3)
    x_t = add_noise(schedule, x0, eps, t)
    velocity = PREDICTIONS["v"].from_x0(x0, x_t, schedule.at(t))
    assert x_t.flatten().tolist() == pytest.approx([1.10500419, 0.769905448, -0.419704825, -0.754959047], abs=4e-7)
    expected = [-0.349895269, -0.802557468, -1.02078438, -0.568107486]
    assert velocity.flatten().tolist() == pytest.approx(expected, abs=4e-7)
