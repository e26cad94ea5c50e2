"""Execute steps of a run again from a stored state and compare the logged digests."""

import dataclasses
from collections.abc import Callable, Mapping

from jaxrl_surrogate.loop import loop
from jaxrl_surrogate.loop.collect import collect_batch
from jaxrl_surrogate.loop.run import Run
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.training.state import abstract_params, abstract_state
from jaxrl_surrogate.training.step import make_update


@dataclasses.dataclass(frozen=True)
class Difference:
    """The first step and phase whose digests differ from those that were logged."""

    step: int
    phase: str  # one of `digests.PHASES`
    arrays: list[str]  # names of the arrays of the phase whose digests differ

    def __str__(self) -> str:
        """Return the step, the phase and the arrays as text."""
        return f"step {self.step}, phase {self.phase}: {', '.join(self.arrays)}"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The result of executing steps again."""

    start: int  # the step whose stored state was restored
    last: int  # the last step that was executed
    compared: int  # number of digests that were compared
    difference: Difference | None  # None if all digests agree


def reexecute(
    run: Run,
    logged: Mapping[int, Mapping[str, Mapping[str, str]]],
    start: int,
    last: int,
    on_step: Callable[[int, int], None] = lambda step, compared: None,
) -> Comparison:
    """Execute steps again in memory until one differs from what was logged.

    The digests of the restored state are compared first. Then those of each step's
    rollout, rewards, weights and state are compared, as far as they were logged.

    Args:
      run: built from the run's config; the call moves its prompt stream.
      logged: rows of digests by step (`run_log.read_digests`).
      start: a step of `StateReader.steps`, whose state is restored.
      last: the last step to execute.
      on_step: called after each step that agrees, with the step and the number of
        digests compared so far.

    Raises:
      ValueError: no state is stored for `start`.
    """
    reader, reference = StateReader(run.directory), None
    if run.update.loss.kl_coef:
        reference = reader.params(0, abstract_params(run.model, run.mesh))
    abstract = abstract_state(run.model, run.optimizer, run.mesh, run.is_frozen)
    state, meta = reader.state(start, abstract)
    # Only the position is restored: seed and source come from the config, so that a
    # difference in them shows in the digests.
    position = meta["prompts"]["position"] if "prompts" in meta else 0
    run.prompts.restore({"position": position})
    update = make_update(run.model, run.update, run.optimizer, run.mesh, run.is_frozen)
    compared = 0

    def differs(step, found):
        nonlocal compared
        old = {phase: logged.get(step, {}).get(phase) for phase in found}
        old = {phase: arrays for phase, arrays in old.items() if arrays}
        compared += sum(map(len, old.values()))
        wrong = digests.first_difference(old, found)
        return wrong and Difference(step, *wrong)

    wrong = differs(start, digests.state_digests(state))
    for step in range(start + 1, last + 1):
        if wrong:
            return Comparison(start, step - 1, compared, wrong)
        run.collector.sampler.load(state.params, step - 1)
        batch, _ = collect_batch(
            run.collector, run.prompts, step, run.loop.dynamic_sampling_rounds
        )
        wrong = differs(step, digests.batch_digests(batch))
        if wrong:  # the update would differ as well
            return Comparison(start, step, compared, wrong)
        state, _, applied = loop.update_phase(
            run, update, state, batch, reference, step
        )
        found = digests.update_digests(applied)
        if "state" in logged.get(step, {}):
            found |= digests.state_digests(state)
        wrong = differs(step, found)
        if not wrong:
            on_step(step, compared)
    return Comparison(start, last, compared, wrong)
