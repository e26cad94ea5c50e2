"""The training loop: warm start, then rollout, verification, update and evaluation.

Steps count from 1. The checkpoint of step s holds the state after its update; the store
`start` holds the state from which reinforcement learning starts. A run that is started
again resumes from the newest update and uses the stored rollouts of later steps.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from jaxrl_surrogate import models
from jaxrl_surrogate.batch import Batch
from jaxrl_surrogate.loop.evaluation import Evaluation, evaluate
from jaxrl_surrogate.loop.interrupts import StopRequest
from jaxrl_surrogate.loop.run import Outcome, Run
from jaxrl_surrogate.loop.sft import warm_start
from jaxrl_surrogate.loop.verification import sample_rows
from jaxrl_surrogate.parallel import hosts, partition
from jaxrl_surrogate.rollout import SamplerError
from jaxrl_surrogate.storage import digests
from jaxrl_surrogate.storage.checkpoint import RunCheckpoints
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.storage.stops import DamagedCheckpoint, NotFinite
from jaxrl_surrogate.telemetry.compiles import compile_count
from jaxrl_surrogate.telemetry.run_log import RunLog
from jaxrl_surrogate.training.freezing import merge, split
from jaxrl_surrogate.training.state import (
    StateStep,
    TrainState,
    abstract_params,
    abstract_state,
    init_params,
    restart,
)
from jaxrl_surrogate.training.step import make_update


def train(run: Run, log: RunLog) -> Outcome:
    """Train to the last step, from the newest stored state if there is one.

    Returns:
      The outcome; `finished` is False if a signal stopped the run, which can then be
      started again.

    Raises:
      NotFinite: too many updates in a row had a loss or gradient that is not finite.
      VerifierError: the verifier gave too few verdicts, or rewards that the objective
        cannot take.
      SamplerError: the sampler returned no completions; the newest state is stored.
    """
    plan = run.loop
    for note in run.notes:
        log.note(note)
        log.event(-1, "note", what=note)
    update = make_update(run.model, run.update, run.optimizer, run.mesh, run.is_frozen)
    with _open_store(run) as store, StopRequest() as stop:
        found = _newest(run, store, log)
        if found is None:
            meta = {"before": {}, "after": {}, "prompts": run.prompts.state()}
            found = 0, starting_state(run, log), meta
        step, state, meta = found
        meta |= {"config": run.config}
        del found  # the state is donated by every update
        reference = _reference(run, state, log) if run.update.loss.kl_coef else None
        log.resume(step)
        if step == 0 and run.log.digests:
            log.digests(0, digests.state_digests(state))
        if run.eval_problems and not meta["before"]:
            meta |= {"before": _evaluate(run, state, step, log)}
            log.metrics(step, meta["before"])
        missed = step and _evaluation_due(run, step) and step not in log.evaluated()
        if hosts.any_of(bool(missed)):  # a signal stopped the run before it
            scores = _evaluate(run, state, step, log)
            log.add_metrics(step, scores)
            meta |= {"after": scores} if step == plan.steps else {}
        source = run.source(store, log)
        stored_at = time.monotonic()
        skipped = 0  # the number of last updates in a row that were skipped
        while step < plan.steps and not stop.agreed():
            began, compiles = time.perf_counter(), compile_count()
            source.load(state.params, step)
            try:
                rollout = source.next(step + 1)
            except SamplerError:  # store the state, so that no step is repeated later
                if step > (store.latest_update() or 0):
                    _save(store, step, state, meta)
                raise
            batch, metrics = rollout.batch, rollout.metrics
            if stop.agreed():
                break  # the rollout is stored; the state before it is stored below
            state, losses, applied = update_phase(
                run, update, state, batch, reference, step + 1
            )
            step += 1
            meta |= {"prompts": rollout.position}
            metrics |= losses | {"compiles": compile_count() - compiles}
            metrics |= {"seconds": time.perf_counter() - began}
            metrics["tokens_per_second"] = (
                metrics["completion_tokens"] / metrics["seconds"]
            )
            row = metrics.pop("skipped_in_a_row")
            skipped = skipped + row if row == plan.updates else row
            if row:
                what = "loss or gradient not finite"
                log.note(f"step {step}: {row} updates skipped: {what}")
            if skipped > plan.nonfinite_limit:
                log.metrics(step, metrics)
                raise NotFinite(
                    f"step {step}: the last {skipped} updates had a loss or gradient "
                    "not finite, and changed nothing. The states stored before are "
                    "intact; lower optimizer.learning_rate, or raise "
                    f"train.nonfinite_limit={plan.nonfinite_limit}"
                )
            if _evaluation_due(run, step) and not stop.agreed():
                scores = _evaluate(run, state, step, log)
                metrics |= scores
                meta |= {"after": scores} if step == plan.steps else {}
            late = False
            if run.checkpoint.every_minutes:
                minutes = (time.monotonic() - stored_at) / 60
                late = hosts.any_of(minutes >= run.checkpoint.every_minutes)
            due = step % run.checkpoint.every == 0 or step == plan.steps
            store_now = due or late
            # Logs are written before the state is stored: a stored step never runs
            # again, so its rows could not be added later.
            found = None
            if run.log.digests:
                every = run.log.digests_every
                whole = store_now or (every > 0 and step % every == 0)
                found = step_digests(batch, applied, state if whole else None)
                log.digests(step, found)
            log.groups(step, batch, applied)
            if metrics["graded"] and run.update.reward_mode == "binary":
                log.note_once(
                    run.collector.verification.graded_warning(batch), "graded rewards"
                )
            log.metrics(step, metrics)
            if _completions_due(run, step):
                rows = sample_rows(
                    run.collector.verification, batch, run.log.completions
                )
                log.completions(step, rows)
            if store_now:
                metric = metrics.get(run.checkpoint.best_metric)
                _save(store, step, state, meta, metric, found and found["state"])
                stored_at = time.monotonic()
        if step > (store.latest_update() or 0):
            _save(store, step, state, meta)
    return Outcome(state, step, step >= plan.steps, meta["before"], meta["after"])


def _save(store, step, state, meta, metric=None, found=None):
    """Store a state without its frozen parameters, which the starting state holds.

    `found` holds the digests of all arrays by name; None means to compute them here.
    """
    if found is None:
        found = digests.named_digests(state)
    mark = "frozen/"
    frozen = {n.removeprefix(mark): d for n, d in found.items() if n.startswith(mark)}
    moving = {n: d for n, d in found.items() if not n.startswith(mark)}
    state = dataclasses.replace(state, frozen={})
    store.save_update(step, state, meta, metric, moving, frozen)


def starting_state(run: Run, log: RunLog) -> TrainState:
    """Return the state from which reinforcement learning starts.

    The first call makes the state, with the warm start if there is one, and stores it.
    Later calls restore it.

    Raises:
      DamagedCheckpoint: the stored state is damaged.
    """
    directory = run.directory / "checkpoints" / "start"
    with RunCheckpoints(directory) as store:
        if store.latest_update() is not None:
            abstract = abstract_state(run.model, run.optimizer, run.mesh, run.is_frozen)
            with _made_again_if_removed(directory):
                return store.restore_update(0, abstract)[0]
        if run.init_params is None:
            params = init_params(run.model, run.mesh, run.seed)
        else:
            params = run.init_params(log.damage)
        if run.warm_start is not None:
            params = warm_start(
                run.warm_start, params, run.model, run.mesh, log, run.is_frozen
            )
        # After the warm start, which has optimizer state of its own in memory.
        state = restart(params, run.model, run.optimizer, run.mesh, run.is_frozen)
        store.save_update(0, state, {})
        return state


def _reference(run: Run, state: TrainState, log: RunLog) -> models.Params:
    """Return the parameters of the starting state, the reference of the KL penalty.

    Frozen parameters have not changed since; they are shared with `state`, not copied.
    """
    abstract, _ = split(abstract_params(run.model, run.mesh), run.is_frozen)
    with _start(run, log) as reader:
        return merge(reader.params(0, abstract), state.frozen)


@contextlib.contextmanager
def _start(run: Run, log: RunLog) -> Iterator[StateReader]:
    """Yield a reader of the starting state; make the state again if it was removed."""
    reader = StateReader(run.directory)
    if 0 not in reader.steps():
        starting_state(run, log)
    with _made_again_if_removed(run.directory / "checkpoints" / "start"):
        yield reader


@contextlib.contextmanager
def _made_again_if_removed(directory: Path) -> Iterator[None]:
    try:
        yield
    except DamagedCheckpoint as error:
        raise DamagedCheckpoint(
            f"{error}. Remove {directory} to make the starting state again, by the "
            "same initialisation and warm start"
        ) from error


def newest_params(
    run: Run, on_damage: Callable[[str], None]
) -> tuple[models.Params, int]:
    """Return the newest stored parameters of a run and their step.

    Args:
      run: the run.
      on_damage: called with a message for each newer state that is damaged.

    Raises:
      DamagedCheckpoint, ValueError: see `StateReader.newest_params`.
    """
    abstract = abstract_params(run.model, run.mesh)
    return StateReader(run.directory).newest_params(abstract, on_damage)


def run_evaluation(run: Run, params: models.Params, step: int) -> Evaluation:
    """Evaluate the parameters after a step on the run's held-out problems."""
    at_once = run.evaluation.batch_prompts or max(1, len(run.eval_problems))
    devices = partition.num_batch_shards(run.mesh)
    batch_prompts = -(-at_once // devices) * devices
    run.evaluator.sampler.load(params, step)
    return evaluate(run.evaluator, run.eval_problems, batch_prompts)


def _evaluate(run: Run, state: TrainState, step: int, log: RunLog) -> dict[str, float]:
    """Evaluate after a step, log the whole evaluation, and return its metrics."""
    found = run_evaluation(run, state.params, step)
    log.evaluation(step, found.row())
    if found.note_counts:
        log.verifier(step, found.note_counts)
    return found.metrics()


def _open_store(run: Run) -> RunCheckpoints:
    kept = run.checkpoint
    return RunCheckpoints(
        run.directory / "checkpoints",
        keep_last=kept.keep_last,
        keep_every=kept.keep_every,
        keep_best=kept.keep_best,
        lowest_is_best=kept.best_is == "lowest",
    )


def _newest(run: Run, store: RunCheckpoints, log: RunLog):
    """Return step, state and meta of the newest sound update, or None if none exists.

    The call also moves the run's prompt stream to the position after that step.
    """
    abstract = abstract_state(run.model, run.optimizer, run.mesh, run.is_frozen)
    moving = dataclasses.replace(abstract, frozen={})
    found = store.newest_update(moving, log.damage)
    if found is None:
        return None
    step, state, meta = found
    if abstract.frozen:
        with _start(run, log) as reader:
            frozen = reader.frozen(step, abstract.frozen)
        state = dataclasses.replace(state, frozen=frozen)
    run.prompts.restore(meta["prompts"])
    return step, state, meta


def update_phase(
    run: Run,
    update: StateStep,
    state: TrainState,
    batch: Batch,
    reference: models.Params | None,
    step: int,
):
    """Take all optimizer steps of a training step on its batch.

    Args:
      run: the run.
      update: the compiled update (`make_update`).
      state: the state before the step; donated except for its frozen parameters.
      batch: the batch of the step, NumPy arrays.
      reference: the reference model's parameters; None without a KL term.
      step: the training step, from 1 on, which selects the objective.

    Returns:
      The new state, metrics that are means over the optimizer steps, and a (G, M) array
      of the weight that each sample was given, averaged over the epochs.
    """
    began = time.perf_counter()
    # Cast to dtypes that devices hold: device_put compares the values between hosts.
    objective = jax.tree.map(
        lambda x: np.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype)),
        run.objective(step),
    )
    objective = jax.device_put(objective, partition.replicated(run.mesh))
    parts = run.loop.minibatches
    history = []
    applied = np.zeros(batch.rewards.shape, np.float32)
    for _ in range(run.loop.epochs):
        for part in range(parts):
            piece = jax.tree.map(lambda leaf, part=part: leaf[part::parts], batch)
            piece = jax.device_put(piece, partition.batch_sharding(run.mesh))
            state, metrics = update(state, piece, objective, reference)
            history.append(metrics)
    history = jax.device_get(history)
    for turn, metrics in enumerate(history):
        applied[turn % parts :: parts] += metrics.pop("applied_weights")
    means = {
        name: float(np.mean([metrics[name] for metrics in history]))
        for name in history[0]
    }
    # Later epochs move away from the sampler on purpose; the first update tells whether
    # sampler and trainer compute the same policy.
    means["sampler_trainer_logprob_diff_max"] = float(
        history[0]["sampler_trainer_logprob_diff_max"]
    )
    means["skipped"] = float(history[-1]["skipped"])
    means["skipped_in_a_row"] = _in_a_row(history)
    means |= {"seconds_update": time.perf_counter() - began}
    return state, means, applied / run.loop.epochs


def _in_a_row(history: list[dict]) -> int:
    """Count the last updates in a row whose loss or gradient is not finite."""
    finite = np.isfinite([(m["loss"], m["grad_norm"]) for m in history]).all(-1)
    return len(history) - (int(np.flatnonzero(finite)[-1]) + 1 if finite.any() else 0)


def step_digests(
    batch: Batch, applied: np.ndarray, state: TrainState | None
) -> digests.Digests:
    """Return the digests of a step's phases, with the state's if it is given."""
    row = digests.batch_digests(batch) | digests.update_digests(applied)
    return row if state is None else row | digests.state_digests(state)


def _evaluation_due(run: Run, step: int) -> bool:
    every = run.evaluation.every
    return bool(run.eval_problems) and (
        step == run.loop.steps or (every > 0 and step % every == 0)
    )


def _completions_due(run: Run, step: int) -> bool:
    """Return whether a step logs completions; the first and the last step always do.

    With `completions_every` 0 no step does.
    """
    every = run.log.completions_every
    return bool(every) and (step % every == 0 or step in (1, run.loop.steps))
