"""Sources of clips, and the store that keeps them."""

from pipeline.data.moving_blob import MovingBlob
from pipeline.data.moving_digits import MovingDigits

SOURCES = {"moving_digits": MovingDigits, "moving_blob": MovingBlob}
