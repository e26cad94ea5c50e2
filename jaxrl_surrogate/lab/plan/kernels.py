"""Work of the kernels that XLA calls and does not look into."""

import re

from jaxrl_surrogate.lab.plan.hlo import Computation, Instruction


def grouped_product(
    computation: Computation, instruction: Instruction
) -> tuple[float, float] | None:
    """Operations and HBM bytes of a product of groups of rows, or None.

    JAX's kernels for it (`models.grouped_product`) take the offsets of all groups, (E +
    1,), and the matrices of B of them: B / E of the rows are theirs when all groups are
    of one size, which is assumed. Every matrix is read once.
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
