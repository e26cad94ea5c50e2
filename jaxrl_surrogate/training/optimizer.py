"""Build the optimizer, an optax chain, from typed settings."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.training.offload import offloaded
from jaxrl_surrogate.typed_fields import check_fields

PyTree = Any

# Axes that do not count towards a matrix: "layers" stacks the arrays of the layers, and
# "heads" with "head_dim" is one dimension written as two.
_NO_DIMENSION = ("layers", "head_dim")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Settings of the optimizer: rule, learning-rate schedule, clipping and decay."""

    name: Annotated[
        Literal["adamw", "adam", "sgd", "lion", "adafactor"], "optax rule", "kept"
    ] = "adamw"
    learning_rate: Annotated[float, "peak learning rate", "numbers"] = 1e-4
    schedule: Annotated[
        Literal["constant", "linear", "cosine"], "decay after the warm-up", "numbers"
    ] = "constant"
    warmup_steps: Annotated[int, "steps of linear warm-up", "numbers"] = 0
    final_fraction: Annotated[
        float, "learning rate at the last step / peak", "numbers"
    ] = 0.0
    b1: Annotated[float, "first moment decay; sgd: momentum", "numbers"] = 0.9
    b2: Annotated[float, "second moment decay", "numbers"] = 0.95
    eps: Annotated[float, "added to the root of the second moment", "numbers"] = 1e-8
    weight_decay: Annotated[
        float, "decoupled weight decay, matrices only", "numbers"
    ] = 0.0
    clip_norm: Annotated[
        float, "clip the global gradient norm; 0 does not clip", "numbers"
    ] = 1.0
    offload: Annotated[
        bool, "hold the moments in pinned host memory between updates", "operational"
    ] = False

    def __post_init__(self):
        check_fields(self)
        for field, low, high in (
            ("learning_rate", 0, math.inf),
            ("warmup_steps", 0, math.inf),
            ("final_fraction", 0, 1),
            ("weight_decay", 0, math.inf),
            ("clip_norm", 0, math.inf),
        ):
            value = getattr(self, field)
            if not low <= value <= high or math.isinf(value):
                limits = f"{low} or more" if high == math.inf else f"{low} to {high}"
                raise FieldError(field, value, f"{limits}, finite")
        for field in ("b1", "b2"):
            if not 0 <= getattr(self, field) < 1:
                raise FieldError(field, getattr(self, field), "a decay in [0, 1)")
        if not 0 < self.eps < math.inf:
            raise FieldError("eps", self.eps, "more than 0, finite")
        if self.name == "adam" and self.weight_decay:
            raise FieldError(
                "weight_decay",
                self.weight_decay,
                problem="adam has no decoupled decay",
                expected="0, or name=adamw",
            )


def learning_rate(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Return the learning rate as a function of the number of updates done.

    The warm-up rises to the peak in `warmup_steps` equal increments. Its first value is
    not zero, so that no update is lost. The decay reaches `final_fraction` of the peak
    at the last update and stays there; "constant" stays at the peak.

    Args:
      config: the optimizer's settings.
      total_steps: updates in the run.

    Returns:
      A function from a step (int or () int32, 0 for the first update) to () float32.

    Raises:
      FieldError: `total_steps` is not positive or shorter than the warm-up.
    """
    if total_steps < 1:
        raise FieldError("total_steps", total_steps, "at least 1")
    if config.warmup_steps > total_steps:
        raise FieldError(
            "warmup_steps",
            config.warmup_steps,
            f"at most the {total_steps} updates that are made with it",
        )
    peak, warmup = config.learning_rate, config.warmup_steps
    decay_steps = max(total_steps - 1 - warmup, 1)
    final = config.final_fraction

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup) / decay_steps, 0, 1)
        match config.schedule:
            case "constant":
                fraction = jnp.ones_like(step)
            case "linear":
                fraction = 1 - (1 - final) * progress
            case "cosine":
                fraction = final + (1 - final) * (1 + jnp.cos(jnp.pi * progress)) / 2
        return peak * jnp.minimum((step + 1) / max(warmup, 1), 1) * fraction

    return schedule


def make_optimizer(
    config: OptimizerConfig, total_steps: int, logical_axes: PyTree | None = None
) -> optax.GradientTransformation:
    """Build the chain: clip, then the rule, then weight decay, then the learning rate.

    The optimizer state is a dict of the states of the four parts. Its structure does
    not depend on the settings that a resumed run may change (learning rate, schedule,
    clipping, decay). It depends on the rule, and for sgd on whether there is momentum.

    Args:
      config: the settings. adafactor is used without relative steps, and uses only
        learning rate, schedule, decay and clipping.
      total_steps: updates in the run, for the schedule.
      logical_axes: the model's logical axes, a tuple of names for each parameter; see
        `decay_mask`. Needed for weight decay only.

    Returns:
      An optax transformation whose update is to be added to the parameters.

    Raises:
      FieldError: there is weight decay but `logical_axes` is None, or the schedule is
        not possible (see `learning_rate`).
    """
    if config.weight_decay and logical_axes is None:
        raise FieldError(
            "weight_decay",
            config.weight_decay,
            "the model's logical_axes, which tell matrices from scales and biases",
        )
    clip, decay = optax.identity(), optax.identity()
    if config.clip_norm:
        clip = optax.clip_by_global_norm(config.clip_norm)
    if config.weight_decay:
        decay = optax.add_decayed_weights(config.weight_decay, decay_mask(logical_axes))
    schedule = optax.scale_by_learning_rate(learning_rate(config, total_steps))
    chain = optax.named_chain(
        ("clip", clip), ("rule", _rule(config)), ("decay", decay), ("rate", schedule)
    )
    return offloaded(chain) if config.offload else chain


def decay_mask(logical_axes: PyTree) -> PyTree:
    """Return which parameters are matrices; weight decay applies to these only.

    Shapes cannot tell, because layers are stacked: the scales of a norm are (L, D) and
    a bias of queries is (L, heads, head_dim). So logical axes decide: a matrix has two
    or more axes besides "layers" and "head_dim". Embedding tables are matrices.

    Args:
      logical_axes: nested dict with a tuple of names or None for each parameter.

    Returns:
      The same tree of bools.
    """
    return jax.tree.map(
        lambda axes: sum(axis not in _NO_DIMENSION for axis in axes) >= 2,
        logical_axes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def _rule(config: OptimizerConfig) -> optax.GradientTransformation:
    """Return the rule alone, which rescales gradients (Adam, Lion, momentum, ...)."""
    match config.name:
        case "adamw" | "adam":
            return optax.scale_by_adam(config.b1, config.b2, config.eps)
        case "lion":
            return optax.scale_by_lion(config.b1, config.b2)
        case "sgd":
            return optax.trace(config.b1) if config.b1 else optax.identity()
        case "adafactor":
            # Shazeer & Stern, arXiv 1804.04235, algorithm 4, with update clipping at 1.
            return optax.chain(
                optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)
            )
