"""Compiler options with which XLA rounds exactly where the code does."""

# The compiler options for `jax.jit` of every program that computes a policy. By default
# XLA may omit a rounding to bfloat16 whose result is converted back to float32. It does
# so between unrolled layers, but not between those of a scan. The log-probabilities of
# sampler and trainer would then differ by 1e-2 at the same parameters.
AS_WRITTEN = {"xla_allow_excess_precision": False}
