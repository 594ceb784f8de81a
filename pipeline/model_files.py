"""A cell's student as the files of an MLflow model: its weights and codec, the code that samples, a signature."""

import dataclasses
import functools
import importlib.metadata
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.unit import PROJECT, digest_of, sources_of

if TYPE_CHECKING:
    from mlflow.models import Model

CODE = Path(__file__).with_name("logged_model.py")
REQUIRED = ("mlflow", "torch", "numpy", "pandas", "safetensors", "jaxtyping", "pillow", "tqdm")  # by what it runs


@dataclasses.dataclass(frozen=True)
class Files:
    """Of a trial's student, its codec, and the unit that judged it."""

    student: Path
    codec: Path
    judged: Path

    def are_here(self) -> bool:
        """Whether all are, and the student speaks the latents of that codec."""
        files = (self.student / "student.json", self.codec / "codec.json", self.judged)
        if not all(path.exists() for path in files):
            return False
        return json.loads(files[0].read_text())["latents"] == digest_of(files[1])


def save_model(directory: Path, about: "Model", files: Files, work: Mapping[str, Any]) -> None:
    """Write `directory/model`: code, weights, signature, requirements and an example; nothing of it is a pickle.

    work: of the unit that judged it: the sampler, and the length of its clips.
    """
    import numpy as np
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model as save
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    from pipeline.logged_model import COLUMNS

    C, H, W = json.loads((files.codec / "codec.json").read_text())["frame_shape"]
    request = Schema([ColSpec(DataType.long, name) for name in COLUMNS])
    clips = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, H, W, C))])
    for stem, source in (("student", files.student), ("codec", files.codec)):
        (directory / stem).mkdir()
        for ending in ("json", "safetensors"):
            shutil.copyfile(source / f"{stem}.{ending}", directory / stem / f"{stem}.{ending}")
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells of each validation
    save(
        path=directory / "model",
        mlflow_model=about,
        python_model=CODE,
        code_paths=[str(copy_code(directory))],
        artifacts={stem: str(directory / stem) for stem in ("student", "codec")},
        model_config={"sampler": work["sampler"]},
        signature=ModelSignature(request, clips),
        input_example=pd.DataFrame([(2, work["num_frames"], 0)], columns=list(COLUMNS)),
        pip_requirements=requirements(),
    )


@functools.cache
def modules() -> frozenset[str]:
    """Of the library, those that the model's file imports, directly or not, and the packages that hold them."""
    names, before = {f"pipeline.{CODE.stem}"}, set()
    while names != before:
        before, packages = names, {name.rpartition(".")[0] for name in names} - {""}
        names = set(sources_of(names | packages))
    return frozenset(names)


def copy_code(directory: Path) -> Path:
    """`directory/pipeline`: the modules that the model needs, and no more."""
    for name in modules():
        base = Path(*name.split("."))
        path = base.with_suffix(".py") if (PROJECT / base).with_suffix(".py").exists() else base / "__init__.py"
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / path, directory / path)
    return directory / "pipeline"


def requirements() -> list[str]:
    """What a model needs, at the versions of today; without the ending that names a build, like +cpu."""
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in REQUIRED]
