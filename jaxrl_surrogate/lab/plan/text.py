"""Formats a plan as text."""

from collections.abc import Sequence

from jaxrl_surrogate.lab.plan.compile import CompiledPhase, host_bytes
from jaxrl_surrogate.lab.plan.job import Job, cache_arrays, decode_weights
from jaxrl_surrogate.lab.plan.report import ASSUMPTIONS, Plan
from jaxrl_surrogate.lab.plan.roofline import Roofline
from jaxrl_surrogate.lab.plan.search import Tried
from jaxrl_surrogate.parallel import partition

_SHOWN_BYTES = 10**6  # rows of the traffic table that move less are summed


def plan_text(plan: Plan) -> str:
    """Return the text of a plan: memory, time, collectives and whether it fits."""
    sizes = mesh_text(plan)
    c, rollout = plan.job.model, plan.job.rollout
    host, updates = host_bytes(plan.job, plan.mesh), plan.job.loop.updates
    lines = [
        f"{plan.name} on {plan.topology.name}: {plan.topology.num_chips} x "
        f"{plan.topology.chip.name}, mesh {sizes}",
        f"{_count(c.num_params)} parameters; {rollout.prompts_per_step} prompts x "
        f"{rollout.group_size} completions x {rollout.max_completion_length} "
        f"tokens a step, {updates} update{'s' * (updates > 1)}",
        "",
        f"memory of a chip, {'GiB' if _unit(plan) == 2**30 else 'MiB'}",
        table(_memory_rows(plan)),
        *([f"and in its host's memory {_size(plan, host)}: optimizer"] if host else []),
        "",
        "time of a phase",
        table(_time_rows(plan)),
    ]
    for name, line in plan.rooflines.items():
        if line is not None and line.traffic:
            lines += ["", f"collectives of the {name}", table(_traffic_rows(line))]
    for name, faults in plan.unintended.items():
        if faults:
            lines += ["", f"collectives of the {name} that nothing asks for", *faults]
    lines += ["", _verdict(plan)]
    if plan.step_seconds is not None:
        lines += ["assumed: " + "; ".join(ASSUMPTIONS)]
    return "\n".join(lines)


def mesh_text(plan: Plan) -> str:
    """Return the mesh axes with more than one device, such as "data=2 x fsdp=4"."""
    split = {axis: size for axis, size in plan.mesh.shape.items() if size > 1}
    return " x ".join(f"{axis}={size}" for axis, size in split.items()) or "of one"


def search_text(tried: Sequence[Tried]) -> str:
    """Return a table of the candidates that a search compiled, in the given order."""
    head = (
        "fits", "peak GiB", "step s", "estimated s", "mfu", "compile s",
        "what to set",
    )  # fmt: skip
    rows = [head]
    for each in tried:
        rows.append(
            (
                "yes" if each.plan.fits else "no",
                f"{each.plan.peak_bytes / 2**30:.2f}",
                number(each.plan.step_seconds, ".1f"),
                number(each.candidate.estimate.seconds, ".1f"),
                number(each.plan.utilisation, ".1%"),
                f"{each.plan.compile_seconds:.0f}",
                argv_of(each),
            )
        )
    return table(rows)


def argv_of(tried: Tried) -> str:
    """Return the command-line arguments that select a candidate."""
    fields = tried.candidate.fields.items()
    return " ".join(f"--{field}={value}" for field, value in fields)


def shardings_text(job: Job, devices: Sequence) -> str:
    """Describe how the arrays of a step are sharded: state, rollout weights, KV cache.

    Raises:
      ValueError: as `Job.make_mesh`.
    """
    mesh = job.make_mesh(devices)
    state = job.abstract_state(mesh)
    trees = {"train state": state}
    shardings = {"train state": _shardings(state)}
    for title, pairs in (
        ("weights of the rollout", decode_weights(job, mesh)),
        ("keys and values of the rollout", cache_arrays(job, mesh)),
    ):
        trees[title] = {name: pair[0] for name, pair in pairs.items()}
        shardings[title] = {name: pair[1] for name, pair in pairs.items()}
    return "\n\n".join(
        f"{title}\n{partition.describe(shardings[title], trees[title])}"
        for title in trees
    )


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns; the first and last are aligned to the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    last = len(widths) - 1
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def number(value: float | None, form: str) -> str:
    """Format a number, or return a dash for None."""
    return "-" if value is None else format(value, form)


def _shardings(tree):
    import jax

    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _memory_rows(plan):
    names = list(
        dict.fromkeys(
            name for phase in plan.phases.values() for name in phase.memory.parts
        )
    )
    rows = [("", *plan.phases)]
    unit = _unit(plan)
    for name in names:
        cells = (phase.memory.parts.get(name) for phase in plan.phases.values())
        rows.append((name, *("" if b is None else f"{b / unit:.2f}" for b in cells)))
    memories = [phase.memory for phase in plan.phases.values()]
    rows.append(("peak", *(f"{memory.total / unit:.2f}" for memory in memories)))
    rows.append(("of", *(f"{memory.usable / unit:.2f}" for memory in memories)))
    fits = [_fits(phase) for phase in plan.phases.values()]
    rows.append(("fits", *("yes" if fit else "NO" for fit in fits)))
    return rows


def _time_rows(plan):
    rows = [
        ("", "seconds", "bound", "compute s", "HBM s", "ICI s", "Tflop", "HBM GB",
         "compile s"),
    ]  # fmt: skip
    for name, phase in plan.phases.items():
        line = plan.rooflines[name]
        if line is None:
            rows.append((name, *["-"] * 7, f"{phase.seconds:.0f}"))
            continue
        rows.append(
            (
                name,
                number(line.seconds, ".2f"),
                line.bound or "-",
                number(line.compute_seconds, ".2f"),
                number(line.hbm_seconds, ".2f"),
                number(line.network_seconds, ".2f"),
                f"{line.flops / 1e12:.4g}",
                f"{line.hbm_bytes / 1e9:.4g}",
                f"{phase.seconds:.0f}",
            )
        )
    return rows


def _traffic_rows(line: Roofline):
    rows = [("kind", "axes", "times", "GB sent", "seconds", "beside work", "of")]
    small = [t for t in line.traffic if t.bytes < _SHOWN_BYTES]
    for t in line.traffic:
        if t not in small:
            rows.append(
                (
                    t.kind,
                    "+".join(t.axes) or "-",
                    str(t.times),
                    f"{t.bytes / 1e9:.3f}",
                    number(t.seconds, ".3f"),
                    number(t.overlapped_seconds, ".3f"),
                    _sources(t.sources),
                )
            )
    if small:
        seconds = [t.seconds for t in small]
        known = None not in seconds
        rows.append(
            (
                f"{len(small)} more",
                "",
                str(sum(t.times for t in small)),
                f"{sum(t.bytes for t in small) / 1e9:.3f}",
                number(sum(seconds) if known else None, ".3f"),
                "",
                "",
            )
        )
    return rows


def _sources(sources: Sequence[str]) -> str:
    """Return the last parts of up to four names of JAX operations."""
    names = list(dict.fromkeys(source.rpartition("/")[2] for source in sources))
    shown = ", ".join(name for name in names[:4] if name)
    return f"{shown}, ..." if len(names) > 4 else shown


def _verdict(plan: Plan) -> str:
    if not plan.fits:
        faults = []
        for name, phase in plan.phases.items():
            if not _fits(phase):
                over = (phase.memory.total - phase.memory.usable) / 2**30
                faults.append(f"the {name} lacks {over:.2f} GiB")
        return f"DOES NOT FIT: {' and '.join(faults)}"
    if plan.step_seconds is None:
        return "fits; no published peak for this device, so no times"
    return (
        f"fits; a step takes about {plan.step_seconds:.1f} s at {plan.utilisation:.1%} "
        f"model-flops utilisation, collectives are {plan.network_share:.0%} of it; "
        f"compiled in {plan.compile_seconds:.0f} s"
    )


def _fits(phase: CompiledPhase) -> bool:
    return phase.cost is not None and phase.memory.fits


def _size(plan: Plan, number: int) -> str:
    return f"{number / _unit(plan):.2f}"


def _unit(plan: Plan) -> int:
    return 2**30 if plan.peak_bytes >= 2**29 else 2**20


def _count(size: float) -> str:
    """Abbreviate a large number, such as 8.19B."""
    for unit, letter in ((1e9, "B"), (1e6, "M")):
        if size >= unit:
            return f"{size / unit:.3g}{letter}"
    return str(size)
