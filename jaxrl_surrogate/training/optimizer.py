"""The optimizer, an optax chain built from typed settings."""

import dataclasses
from typing import Annotated, Literal


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer, schedule, clipping and decay."""

    name: Annotated[Literal["adamw", "adam", "sgd", "lion", "adafactor"], "optax rule"] = (
        "adamw"
    )
    learning_rate: Annotated[float, "peak learning rate"] = 1e-4
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], "decay after the warm-up"
    ] = "constant"
    warmup_steps: Annotated[int, "steps of linear warm-up"] = 0
    final_fraction: Annotated[float, "learning rate at the last step / peak"] = 0.0
    b1: Annotated[float, "first moment decay"] = 0.9
    b2: Annotated[float, "second moment decay"] = 0.95
    eps: Annotated[float, "added to the root of the second moment"] = 1e-8
    weight_decay: Annotated[float, "decoupled weight decay, matrices only"] = 0.0
    clip_norm: Annotated[float, "clip the global gradient norm; 0 does not clip"] = 1.0
