"""Train the frame autoencoder, and write the latents of the training clips: python -m stages.codec"""

from pipeline.config import Params
from stages.entry import ARTIFACTS, publish, stage


def main(params: Params) -> None:
    inputs = {"clips": ARTIFACTS / "prepare", "features": ARTIFACTS / "features"}
    publish(params, "codec", "", params.codec_unit(), inputs)


if __name__ == "__main__":
    stage(main)
