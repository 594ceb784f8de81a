"""Axis 1: how the student's frames come about."""

from pipeline.methods.diffusion_forcing import DiffusionForcing
from pipeline.methods.self_forcing import SelfForcing

METHODS = {"diffusion_forcing": DiffusionForcing, "self_forcing": SelfForcing}
