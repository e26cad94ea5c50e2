"""Where numbers are rounded: where the code says it, in every program alike."""

# For `jax.jit` of every program that computes a policy. XLA may leave out a rounding to
# bfloat16 whose result is widened again, and does so where a program lets it: between
# unrolled layers, but not between those of a scan. Sampler and trainer would then
# differ by 1e-2 in log-probability at the same parameters.
AS_WRITTEN = {"xla_allow_excess_precision": False}
