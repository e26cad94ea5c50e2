"""Counts the work of custom kernels, which are opaque to XLA."""

import re

from jaxrl_surrogate.lab.plan.hlo import Computation, Instruction


def grouped_product(
    computation: Computation, instruction: Instruction
) -> tuple[float, float] | None:
    """Return (flops, HBM bytes) of a grouped matrix product, or None for other calls.

    JAX's kernels (`models.grouped_product`) take the offsets of all E groups, (E + 1,),
    and the matrices of B of them. Groups are assumed to have equal sizes, so that B / E
    of the rows are used, and every matrix to be read once.

    Args:
      computation: computation that contains the instruction.
      instruction: any instruction.
    """
    if instruction.opcode != "custom-call":
        return None
    if not re.search(r"\bt?gmm\b", instruction.source):
        return None
    taken = [
        array
        for name in instruction.operands
        if name in computation.instructions
        for array in computation.instructions[name].arrays
    ]
    lists = [array for array in taken if len(array.dims) == 1]
    matrices = [array for array in (*taken, *instruction.arrays) if len(array.dims) > 1]
    banks = [array for array in matrices if len(array.dims) == 3]
    rows = [array for array in matrices if len(array.dims) == 2]
    if not lists or len(banks) != 1 or len(rows) != 2:
        return None
    groups = lists[0].dims[0] - 1
    share = banks[0].dims[0] / groups
    flops = 2.0 * rows[-1].dims[0] * banks[0].dims[1] * banks[0].dims[2] * share
    return flops, banks[0].bytes + share * sum(array.bytes for array in rows)
