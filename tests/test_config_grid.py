"""Every wrong parameter of the grid, of init, and of the comparison of beginnings is named with rule and value."""

import pytest

from pipeline.config import parse_params
from pipeline.schema import ConfigError
from tests.parameters import changed

INIT = {"name": "ode_regression", "teacher_attention": "causal", "training": {"num_steps": 4}}


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("methods", {}, r"grid: methods must name at least one, got none"),
        ("methods.forced", {}, r"grid\.methods\.forced\.name must be one of bidirectional, .*, got 'forced'"),
        ("methods.self_forcing.exit_step", "never", r"grid\.methods\.self_forcing: exit_step must .*'never'"),
        ("losses.wgan", {}, r"grid\.losses\.wgan\.name must be one of l2, dmd, gan, .*, got 'wgan'"),
        ("losses.kd.num_steps", 0, r"grid\.losses\.kd: num_steps must be at least 1, got 0"),
        ("losses.dmd.critic_updates", 0, r"grid\.losses\.dmd: critic_updates must be at least 1, got 0"),
        (
            "critic_optimizers.wgan",
            {"name": "adamw"},
            r"grid: critic_optimizers must be of losses of the grid, l2, .*, got wgan",
        ),
        ("critic_optimizers.gan.name", "sgd", r"grid\.critic_optimizers\.gan: name must be one of .*, got 'sgd'"),
        (
            "teacher_attention",
            {"wgan": "causal"},
            r"grid: teacher_attention must be of losses of the grid, l2, .*, got wgan",
        ),
        (
            "teacher_attention",
            {"kd": "sideways"},
            r"grid: teacher_attention must be one of causal, bidirectional, got 'sideways'",
        ),
        (
            "teacher_attention",
            {"dmd": "causal"},
            r"grid: teacher_attention must be .* bidirectional with dmd can ask, only bidirectional fits: causal",
        ),
        (
            "teacher_attention",
            {"l2": "causal"},
            r"grid: teacher_attention must be one that bidirectional with l2 can ask, none is asked: causal",
        ),
        ("training.adaptive", {}, r"grid: training\.adaptive must be null: it is for the loss on data alone"),
        ("training.num_steps", 0, r"grid\.training: num_steps must be at least 1, got 0"),
        ("training.momentum", 0.9, r"grid\.training\.momentum is not a parameter; known here: .*num_steps.*"),
        ("num_clips", 1, r"grid: num_clips must be at least 2, got 1"),
        (
            "num_clips",
            2_049,
            r"grid\.num_clips must be at most half of prepare\.num_test, and prepare\.num_train: 2049 and 2048",
        ),
        ("num_clips", 4, r"grid: num_clips must be at least 6, got 4"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(path, value, says):
    refuse(f"grid.{path}", value, says)


def test_a_student_of_the_grid_may_follow_the_teacher_that_sees_the_future():
    methods = {"diffusion_forcing": {}, "self_forcing": {}}
    params = changed("grid.methods", methods)
    params["grid"]["teacher_attention"] = {"kd": "bidirectional"}
    grid = parse_params(params)
    asked = {
        (cell.method, cell.loss): grid.cell_units(cell).teacher for cell in grid.grid.cells() if not cell.excluded
    }
    assert {asked[method, "kd"] for method in methods} == {"bidirectional"}
    assert asked["diffusion_forcing", "pagoda"] == "causal"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"name": "warm"}, r"init\.name must be one of none, teacher, ode_regression, consistency, got 'warm'"),
        ({}, r"init\.name must be one of none, teacher, ode_regression, consistency, got None"),
        ({"name": "teacher", "training": {}}, r"init\.training is not a parameter; known here: none"),
        ({"name": "ode_regression"}, r"init\.teacher_attention must be given"),
        ({"name": "consistency"}, r"init\.training must be given"),
        (
            {**INIT, "teacher_attention": "full"},
            r"init: teacher_attention must be one of causal, bidirectional, got 'full'",
        ),
        ({**INIT, "solver": "rk4"}, r"init: solver must be one of euler, heun, got 'rk4'"),
        (
            {**INIT, "num_steps": 6},
            r"init: num_steps must be a multiple of sampler\.num_steps, whose levels are kept: 6 and 4",
        ),
        ({**INIT, "num_clips": 0}, r"init: num_clips must be at least 1, got 0"),
        (
            {**INIT, "training": {"num_steps": 4, "adaptive": {}}},
            r"init: training\.adaptive must be null: the levels are those of the sampler",
        ),
        (
            {
                "name": "consistency",
                "training": {"num_steps": 4},
                "loss": {"grid": {"num_levels": 41, "segments": 4}},
            },
            r"init\.loss\.grid\.segments above 1 need sampler\.step ddim or euler, .*, got segments=4 and .*",
        ),
    ],
)
def test_an_init_that_cannot_be_made_is_refused(value, says):
    refuse("init", value, says)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (
            "num_steps",
            6,
            r"causal_forcing: num_steps must be a multiple of sampler\.num_steps, whose levels are kept: 6 and 4",
        ),
        ("num_steps", 0, r"causal_forcing: num_steps must be at least 1, got 0"),
        ("solver", "rk4", r"causal_forcing: solver must be one of euler, heun, got 'rk4'"),
        ("num_heldout", 1, r"causal_forcing: num_heldout must be at least 2, got 1"),
        ("num_trajectories", 0, r"causal_forcing: num_trajectories must be at least 1, got 0"),
        ("num_clips", 1, r"causal_forcing: num_clips must be at least 2, got 1"),
        ("num_clips", 4, r"causal_forcing: num_clips must be at least 6, got 4"),
        (
            "num_clips",
            2_049,
            r"causal_forcing\.num_clips must be at most half of prepare\.num_test, .*: 2049 and 2048",
        ),
        ("training.adaptive", {}, r"causal_forcing: training\.adaptive must be null: .*"),
        ("rollout.adaptive", {}, r"causal_forcing: rollout\.adaptive must be null: .*"),
        ("dmd.guidance", 2.0, r"causal_forcing: guidance must be 1 where .* is 0, got 2\.0"),
        ("init", "none", r"causal_forcing\.init is not a parameter; known here: training, rollout, .*"),
    ],
)
def test_an_experiment_that_cannot_be_run_is_refused(path, value, says):
    refuse(f"causal_forcing.{path}", value, says)


def refuse(path, value, says):
    """One line, and this one."""
    with pytest.raises(ConfigError, match=f"^{says}$") as error:
        parse_params(changed(path, value))
    assert "\n" not in str(error.value)
