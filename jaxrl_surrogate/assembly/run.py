"""Builds a `Run`, with everything that training needs, from a config."""

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path

import jax

from jaxrl_surrogate import models, parallel, settings, tasks
from jaxrl_surrogate.assembly.best_metric import check_best_metric
from jaxrl_surrogate.assembly.directory import run_directory
from jaxrl_surrogate.assembly.model import (
    build_model,
    build_shape,
    stop_tokens,
)
from jaxrl_surrogate.assembly.objective import build_objective
from jaxrl_surrogate.assembly.objective_notes import objective_notes
from jaxrl_surrogate.assembly.problems import Fitting, few_problems
from jaxrl_surrogate.assembly.programs import build_sampler, update_config
from jaxrl_surrogate.assembly.published import published_params, starts_from_published
from jaxrl_surrogate.assembly.stored_config import load_stored
from jaxrl_surrogate.assembly.tokenizer import build_tokenizer
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import Collected, FieldError, FieldErrors, inside
from jaxrl_surrogate.loop.collect import Collector
from jaxrl_surrogate.loop.run import Run
from jaxrl_surrogate.loop.sft import WarmStart
from jaxrl_surrogate.loop.verification import Verification
from jaxrl_surrogate.parallel import partition
from jaxrl_surrogate.rollout import SamplingConfig
from jaxrl_surrogate.storage.state_reader import StateReader
from jaxrl_surrogate.tasks import PromptStream
from jaxrl_surrogate.training import offload
from jaxrl_surrogate.training.freezing import freeze, split
from jaxrl_surrogate.training.optimizer import make_optimizer


def build_run(config: TrainConfig, own: Callable[[], object] | None = None) -> Run:
    """Build all parts of a run.

    Args:
      config: config of the run.
      own: acquires the lock of the run directory; the first host calls it before it
        writes anything there. None: this process only reads, and writes nothing.

    Raises:
      FieldErrors: a value is unknown, or values do not fit together; the errors have
        their dotted paths.
    """
    directory = run_directory(config)
    with Collected() as collected:  # reports the errors of independent layers together
        mesh = collected.call("mesh", parallel.make_mesh, config.mesh)
        weights = collected.call("", build_objective, config)
        notes = weights and collected.call("", objective_notes, config)
        collected.call("checkpoint", check_best_metric, config)
        task = collected.call("task", tasks.build, config.task)
        shape = collected.call("", build_shape, config)
        parameters = shape and models.logical_axes(shape)
        is_frozen = parameters and collected.call(
            "model", freeze, config.model.freeze, parameters
        )
        axes = is_frozen and split(parameters, is_frozen)[0]
        optimizer = axes and collected.call(
            "optimizer",
            make_optimizer,
            config.optimizer,
            config.train.total_updates,
            axes,
        )
        sft_optimizer = (axes and config.sft.steps) and collected.call(
            "sft.optimizer",
            make_optimizer,
            config.sft.optimizer,
            config.sft.steps,
            axes,
        )
        if mesh is not None:
            collected.call("", _check_divisible, config, mesh)
            device = mesh.devices.flat[0]
            for field, rule in (
                ("optimizer", optimizer),
                ("sft.optimizer", sft_optimizer),
            ):
                collected.call(field, offload.check, rule, device)
    with inside("task"):
        tokenizer = build_tokenizer(config.task.tokenizer, task, directory, own)
    model = build_model(config, shape, tokenizer)
    lengths = (config.rollout.max_prompt_length, config.rollout.max_completion_length)
    fitting = Fitting(tokenizer, *lengths)
    stops = stop_tokens(config.rollout.stop, tokenizer)
    verification = Verification(
        task=task,
        tokenizer=tokenizer,
        config=config.task,
        reward_mode=config.objective.reward_mode,
        overlong=config.train.overlong,
    )
    with inside("rollout"):
        sampler = build_sampler(config.rollout, model, mesh)
    collector = Collector(
        sampler=sampler,
        rollout=config.rollout,
        stop_tokens=stops,
        seed=config.seed,
        verification=verification,
    )
    evaluator = dataclasses.replace(
        collector,
        stream="evaluation",
        rollout=dataclasses.replace(
            config.rollout,
            group_size=config.eval.samples,
            sampling=SamplingConfig(temperature=config.eval.temperature),
        ),
        verification=dataclasses.replace(verification, overlong="verify"),
    )
    warm_start = None
    if config.sft.steps:
        warm_start = WarmStart(
            config=config.sft,
            problems=PromptStream(
                fitting.references(task.train, "problems of the warm start"),
                zlib.crc32(b"warm start") ^ config.seed,
            ),
            tokenizer=tokenizer,
            lengths=config.rollout,
            optimizer=sft_optimizer,
            compute=config.train,
        )
    train = fitting.prompts(task.train, "training problems")
    test = fitting.prompts(task.test, "test problems") if config.eval.prompts else ()
    count = min(config.eval.prompts, len(test))
    return Run(
        directory=directory,
        config=settings.to_dict(config),
        loop=config.train,
        evaluation=config.eval,
        checkpoint=config.checkpoint,
        log=config.log,
        seed=config.seed,
        model=model,
        mesh=mesh,
        init_params=_initial_params(config, model, mesh),
        warm_start=warm_start,
        prompts=PromptStream(train, config.seed),
        collector=collector,
        evaluator=evaluator,
        eval_problems=[
            dataclasses.replace(test[index], id=index) for index in range(count)
        ],
        objective=weights,
        notes=(*notes, *fitting.notes, *few_problems(config.eval.prompts, count)),
        update=update_config(config),
        optimizer=optimizer,
        is_frozen=is_frozen,
    )


def _initial_params(config: TrainConfig, model: models.DecoderConfig, mesh):
    """Return a function that loads the parameters of `model.init_from`, or None.

    They are the newest of another run, or those of a published model.
    """
    if config.model.init_from is None:
        return None
    if starts_from_published(config.model):
        return published_params(config.model, model, mesh)
    source = Path(config.model.init_from)
    if not (source / "config.yaml").is_file():
        raise FieldError(
            "model.init_from",
            config.model.init_from,
            "the directory of a run, with a config.yaml, or of a published model, with "
            "a config.json",
        )
    StateReader(source).check_format()
    stored = load_stored(source)
    stored = dataclasses.replace(
        stored, run_dir=str(source), mesh=config.mesh, name=source.name
    )
    other = build_run(stored)
    if other.model != dataclasses.replace(
        model, compute_dtype=other.model.compute_dtype
    ):
        raise FieldError(
            "model.init_from",
            str(source),
            problem=f"its model is {other.model}, expected {model}",
        )

    def load(on_damage):
        # Imported here because only this function needs the loop.
        from jaxrl_surrogate.loop.loop import newest_params

        return newest_params(other, on_damage)[0]

    return load


def _check_divisible(config: TrainConfig, mesh: jax.sharding.Mesh) -> None:
    num_shards = partition.num_batch_shards(mesh)
    part = config.rollout.prompts_per_step // config.train.minibatches
    part = config.train.microbatch_prompts or part
    errors = [
        FieldError(
            name,
            value,
            f"a multiple of {num_shards}, the devices that share a batch (mesh.data x "
            "mesh.fsdp x mesh.expert)",
        )
        for name, value in (
            ("prompts of a microbatch", part),
            ("sft.batch_size", config.sft.batch_size if config.sft.steps else 0),
        )
        if value % num_shards
    ]
    if errors:
        raise FieldErrors(errors)
