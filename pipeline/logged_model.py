"""A student that samples clips, as MLflow runs it: a model holds a copy of this file, and weights; no pickle.

mlflow.pyfunc.load_model("models:/forcing-grid@best").predict(pandas.DataFrame({"num_clips": [4], ...}))
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # MLflow has imported both
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

COLUMNS = ("num_clips", "num_frames", "seed")  # of a request


class ClipSampler(PythonModel):
    """Clips by the sampler of which the student was judged: those that `pipeline.sample` makes of the same seed."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read both networks, the only slow part."""
        from pipeline.evaluation.sampling import load_student
        from pipeline.models.codec import load_codec
        from pipeline.unit import digest_of

        codec = Path(context.artifacts["codec"])
        self.codec = load_codec(codec)
        self.student = load_student(Path(context.artifacts["student"]), latents=digest_of(codec / "codec.json"))
        self.sampler = from_plain(context.model_config["sampler"])

    def predict(self, model_input: pd.DataFrame) -> np.ndarray:  # pyright: ignore[reportIncompatibleMethodOverride]
        """uint8 (N, T, H, W, C): the clips of every row, a request each, one after the other.

        Raises:
            ValueError: rows that ask for clips of different length, or for none.
        """
        import torch

        from pipeline.rules import at_least
        from pipeline.sampling_stream import sample_stream

        lengths = sorted({int(length) for length in model_input["num_frames"]})
        if len(lengths) != 1:
            raise ValueError(f"num_frames must be the same in all rows: {lengths}")
        made = []
        for num_clips, num_frames, seed in model_input[list(COLUMNS)].itertuples(index=False):
            at_least(1, num_clips=int(num_clips), num_frames=int(num_frames))
            parts = sample_stream(
                self.student, self.codec, int(num_clips), int(num_frames), sampler=self.sampler, seed=int(seed)
            )
            made.append(torch.cat(list(parts), dim=1).permute(0, 1, 3, 4, 2).numpy())
        return np.concatenate(made)


def from_plain(value: Any) -> Any:
    """What `pipeline.unit.as_plain` made of a dataclass of the library, as that dataclass again.

    Raises:
        ValueError: a class from elsewhere.
    """
    if not isinstance(value, dict):
        return value
    module, _, name = str(value["type"]).rpartition(".")
    if not module.startswith("pipeline."):
        raise ValueError(f"a sampler must be made of classes of pipeline, got {value['type']}")
    kind = vars(import_module(module))[name]
    return kind(**{key: from_plain(part) for key, part in value.items() if key != "type"})


set_model(ClipSampler())
