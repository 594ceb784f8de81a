"""Axis 1: how the student's frames come about."""

from pipeline.methods.bidirectional import Bidirectional
from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing
from pipeline.methods.teacher_forcing import TeacherForcing

METHODS = {
    "bidirectional": Bidirectional,
    "teacher_forcing": TeacherForcing,
    "diffusion_forcing": DiffusionForcing,
    "self_forcing": SelfForcing,
}
