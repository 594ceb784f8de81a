"""Axis 2: what pulls the student's frames towards the data."""

from pipeline.losses.add import Add
from pipeline.losses.consistency_distillation import ConsistencyDistillation
from pipeline.losses.consistency_training import ConsistencyTraining
from pipeline.losses.dmd import Dmd
from pipeline.losses.f_distill import FDistill
from pipeline.losses.gan import Gan
from pipeline.losses.kd import Kd
from pipeline.losses.l2 import L2
from pipeline.losses.mean_flow import MeanFlow
from pipeline.losses.pagoda import Pagoda
from pipeline.losses.sid import Sid

LOSSES = {
    "l2": L2,
    "dmd": Dmd,
    "gan": Gan,
    "sid": Sid,
    "add": Add,
    "f_distill": FDistill,
    "consistency_distillation": ConsistencyDistillation,
    "consistency_training": ConsistencyTraining,
    "mean_flow": MeanFlow,
    "kd": Kd,
    "pagoda": Pagoda,
}
