"""Reading and writing checkpoints in the formats of Hugging Face."""

from jaxrl_surrogate.models.hf.reader import load, read_config
from jaxrl_surrogate.models.hf.writer import save

__all__ = ["load", "read_config", "save"]
