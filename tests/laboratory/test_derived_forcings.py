"""What is derived of judged laws and regressions under the forcings, and where nothing is."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.diffusion.autoregress import Sampler
from pipeline.diffusion.noise_levels import Independent
from pipeline.laboratory.derived import FINE_STEPS, derived
from pipeline.laboratory.objectives import CLEANED, PAGODA_WEIGHT
from pipeline.losses.add import Add
from pipeline.losses.dmd import Dmd
from pipeline.losses.f_distill import FDistill
from pipeline.losses.gan import Gan
from pipeline.losses.kd import Kd
from pipeline.losses.l2 import L2
from pipeline.losses.pagoda import Pagoda
from pipeline.losses.sid import Sid
from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing

SELF_FORCING = SelfForcing(Sampler(num_steps=1))
DIFFUSION_FORCING: Any = DiffusionForcing(noise_levels=CLEANED)
KD, PAGODA = Kd(num_steps=FINE_STEPS), Pagoda(num_steps=FINE_STEPS, gan_weight=PAGODA_WEIGHT)
SID, ADD = Sid(normaliser=False), Add(level_weight="score")
F_DISTILL = FDistill(space="score", normaliser=False, ratio_min=1e-6, ratio_max=1e6)


@pytest.mark.parametrize(
    ("method", "loss", "objective"),
    [
        (TeacherForcing(), SID, "teacher_forcing_fisher_averaged_x0"),
        (TeacherForcing(), ADD, "teacher_forcing_add"),
        (TeacherForcing(), F_DISTILL, "teacher_forcing_jensen_shannon_averaged"),
        (TeacherForcing(), KD, "teacher_forcing_kd"),
        (TeacherForcing(), PAGODA, "teacher_forcing_pagoda"),
        (DIFFUSION_FORCING, SID, "diffusion_forcing_fisher_averaged_x0"),
        (DIFFUSION_FORCING, ADD, "diffusion_forcing_add"),
        (DIFFUSION_FORCING, Gan(), "diffusion_forcing_softened_reverse_kl_averaged"),
        (DIFFUSION_FORCING, KD, "diffusion_forcing_kd"),
        (SELF_FORCING, ADD, "add"),
        (SELF_FORCING, KD, "self_forcing_detached_kd"),
        (Bidirectional(), KD, "kd"),
    ],
)
def test_a_forcing_judges_and_regresses_what_its_student_sees(method, loss, objective):
    assert derived(method, loss, 2, tied=False) == objective


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        (TeacherForcing(), replace(SID, alpha=1.0)),
        (TeacherForcing(), replace(F_DISTILL, ratio_min=0.1)),
        (TeacherForcing(), replace(KD, num_steps=FINE_STEPS - 1)),
        (TeacherForcing(), replace(KD, solver="euler")),
        (SELF_FORCING, Dmd(space="score", normaliser=False, level_min=0.5, level_max=0.6)),
        (SELF_FORCING, replace(SID, level_min=1e-4, level_max=2e-4)),
        (Bidirectional(), Gan(r1_weight=1.0)),
        (Bidirectional(), replace(ADD, gan=Gan(level_min=0.5))),
        (DiffusionForcing(noise_levels=Independent(num_levels=3)), L2()),
        (DIFFUSION_FORCING, replace(ADD, level_weight="uniform")),
        (DIFFUSION_FORCING, replace(PAGODA, gan=Gan())),
        (DiffusionForcing(noise_levels=Independent(clean_probability=0.4)), KD),
        (DiffusionForcing(), KD),
        (replace(SELF_FORCING, detach_context=False), KD),
    ],
)
def test_nothing_is_derived_where_parameters_are_not_those_that_are_predicted(method, loss):
    assert derived(method, loss, 2, tied=False) is None


def test_restored_clips_of_more_frames_are_not_predicted():
    assert derived(DIFFUSION_FORCING, SID, 4, tied=False) is None
