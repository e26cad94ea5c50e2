"""From a config to a run: the only place that knows both the config and the rooms."""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import jax

from jaxrl_surrogate import models, objectives, parallel, settings, tasks
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.faults import Faults, refused_at
from jaxrl_surrogate.objectives import TableFamily
from jaxrl_surrogate.rollout import DecodeConfig, SamplingConfig
from jaxrl_surrogate.settings import SettingsError
from jaxrl_surrogate.tasks import Problem, PromptStream, Task, Tokenizer
from jaxrl_surrogate.tasks.prompts import Subset
from jaxrl_surrogate.training.collect import Collector
from jaxrl_surrogate.training.optimizer import make_optimizer
from jaxrl_surrogate.training.run import Run, Schedule
from jaxrl_surrogate.training.sft import WarmStart
from jaxrl_surrogate.training.step import UpdateConfig

# Sections that decide what the numbers of a run mean: a resumed run keeps them.
_FIXED = ("seed", "task", "model", "rollout", "sft", "loss.normalization")
# Unrolled decoding is faster on a CPU, and compile time is bearable up to this depth.
_UNROLLED_LAYERS = 12
# Sources up to this size are searched for problems that are too long.
_SEARCHED = 200_000
# So many problems of larger ones are looked at before the run.
_PROBED = 256


def run_directory(config: TrainConfig) -> Path:
    """Where a run lives."""
    return Path(config.run_dir.replace("{name}", config.name))


def check_directory(config: TrainConfig) -> Path:
    """The run directory, whose config, if it holds one, must be continued by this one.

    Raises:
      SettingsError: the directory holds a run whose results would not be continued.
    """
    directory = run_directory(config)
    path = directory / "config.yaml"
    if path.exists():
        stored = settings.load(TrainConfig, path)
        changed = [
            f"{name}={new!r}: {directory} was started with {old!r}; give it back, or "
            "choose another run_dir"
            for name, old, new in settings.difference(stored, config)
            if any(name == fixed or name.startswith(f"{fixed}.") for fixed in _FIXED)
        ]
        if changed:
            raise SettingsError("\n".join(changed))
    return directory


def open_directory(config: TrainConfig) -> Path:
    """Make the run directory and store the config in it.

    Raises:
      SettingsError: as `check_directory`, or it cannot be written.
    """
    directory = check_directory(config)
    # Whole or not at all: a run is resumed from this file.
    temporary = directory / "config.yaml.tmp"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary.write_text(settings.to_yaml(config), encoding="utf-8")
        temporary.replace(directory / "config.yaml")
    except OSError as error:
        raise SettingsError(f"run_dir={config.run_dir!r}: {error}") from error
    return directory


def build_run(config: TrainConfig) -> Run:
    """Everything a run is made of.

    Raises:
      SettingsError: values that no room could check alone, with their dotted paths.
    """
    directory = run_directory(config)
    updates = config.train.epochs * config.train.minibatches
    with Faults() as faults:  # of rooms that do not need each other: all at once
        mesh = faults.at("mesh", parallel.make_mesh, config.mesh)
        family = faults.at("objective", build_objective, config)
        task = faults.at("task", tasks.get, config.task.name, **config.task.options)
        shape = faults.at("model", build_shape, config)
        axes = shape and models.logical_axes(shape)
        optimizer = axes and faults.at(
            "optimizer",
            make_optimizer,
            config.optimizer,
            max(1, config.train.steps * updates),
            axes,
        )
        sft_optimizer = (axes and config.sft.steps) and faults.at(
            "sft.optimizer",
            make_optimizer,
            config.sft.optimizer,
            config.sft.steps,
            axes,
        )
        if mesh is not None:
            faults.at("", _check_divisible, config, mesh)
    tokenizer = refused_at(
        "task", build_tokenizer, config.task.tokenizer, task, directory
    )
    model = build_model(config, shape, tokenizer)
    lengths = (config.rollout.max_prompt_length, config.rollout.max_completion_length)
    decode = DecodeConfig(
        group_size=config.rollout.group_size,
        max_length=config.rollout.max_completion_length,
        stop_tokens=(tokenizer.eos_id,),
        sampling=config.rollout.sampling,
        unroll_layers=(
            jax.default_backend() == "cpu" and model.num_layers <= _UNROLLED_LAYERS
        ),
    )
    collector = Collector(
        config=model,
        decode=decode,
        task=task,
        tokenizer=tokenizer,
        mesh=mesh,
        seed=config.seed,
        max_prompt_length=config.rollout.max_prompt_length,
        verify_workers=config.task.verify_workers,
        verify_timeout_s=config.task.verify_timeout_s,
        overlong=config.train.overlong,
    )
    evaluator = dataclasses.replace(
        collector,
        stream="evaluation",
        overlong="verify",
        decode=dataclasses.replace(
            decode,
            group_size=config.eval.samples,
            sampling=SamplingConfig(temperature=config.eval.temperature),
        ),
    )
    warm_start = None
    if config.sft.steps:
        warm_start = WarmStart(
            steps=config.sft.steps,
            batch_size=config.sft.batch_size,
            problems=PromptStream(
                _that_fit(task.train, tokenizer, *lengths),
                zlib.crc32(b"warm start") ^ config.seed,
            ),
            tokenizer=tokenizer,
            max_prompt_length=lengths[0],
            max_completion_length=lengths[1],
            optimizer=sft_optimizer,
            logprob_chunk=config.train.logprob_chunk,
            remat=config.train.remat == "block",
        )
    test = _that_fit(task.test, tokenizer, lengths[0])
    count = min(config.eval.prompts, len(test))
    return Run(
        directory=directory,
        seed=config.seed,
        model=model,
        mesh=mesh,
        init_params=_initial_params(config, model),
        warm_start=warm_start,
        prompts=PromptStream(_that_fit(task.train, tokenizer, lengths[0]), config.seed),
        collector=collector,
        evaluator=evaluator,
        eval_problems=[
            dataclasses.replace(test[index], id=index) for index in range(count)
        ],
        objective=lambda step: family,
        update=UpdateConfig(
            loss=config.loss,
            sampling=config.rollout.sampling,
            microbatch_prompts=config.train.microbatch_prompts,
            logprob_chunk=config.train.logprob_chunk,
            remat=config.train.remat,
        ),
        optimizer=optimizer,
        schedule=Schedule(
            steps=config.train.steps,
            prompts_per_step=config.rollout.prompts_per_step,
            epochs=config.train.epochs,
            minibatches=config.train.minibatches,
            refill_rounds=config.train.dynamic_sampling_rounds,
            eval_every=config.eval.every,
            eval_batch_prompts=_round_up(
                config.eval.batch_prompts or max(1, count), _batch_ways(mesh)
            ),
            checkpoint_every=config.checkpoint.every,
            save_rollouts=config.checkpoint.rollouts,
            keep_last=config.checkpoint.keep_last,
            keep_every=config.checkpoint.keep_every,
            completions_every=config.log.completions_every,
            completions=config.log.completions,
        ),
    )


def build_tokenizer(name: str, task: Task, directory: Path) -> Tokenizer:
    """A tokenizer by name; `bpe:SIZE` is trained once on the task's training texts."""
    if not name.startswith("bpe:"):
        return tasks.tokenizers.get(name)
    size = name.removeprefix("bpe:")
    if not size.isdecimal() or int(size) < 257:
        raise ValueError(
            f"tokenizer={name!r}: expected bpe:SIZE with SIZE at least 257"
        )
    path = directory / "tokenizer.json"
    if not path.exists():
        count = min(len(task.train), 20_000)
        problems = (task.train[index] for index in range(count))
        texts = (problem.prompt + (problem.completion or "") for problem in problems)
        tasks.tokenizers.train_bpe(texts, int(size), path)
    return tasks.tokenizers.get(str(path))


def build_shape(config: TrainConfig) -> models.DecoderConfig:
    """The decoder's shape before it knows a vocabulary: a preset with overrides.

    Raises:
      SettingsError: unknown preset or field, or values that do not fit together.
    """
    preset = refused_at("model", models.presets.get, config.model.preset)
    preset = dataclasses.replace(preset, compute_dtype=config.model.compute_dtype)
    return settings.updated(preset, config.model.overrides, "model.overrides")


def build_model(
    config: TrainConfig, shape: models.DecoderConfig, tokenizer: Tokenizer
) -> models.DecoderConfig:
    """The decoder's shape with room for the tokenizer's vocabulary.

    Raises:
      SettingsError: an explicit vocabulary that is smaller than the tokenizer's.
    """
    if "vocab_size" in config.model.overrides:
        if shape.vocab_size < tokenizer.vocab_size:
            raise SettingsError(
                f"model.overrides.vocab_size={shape.vocab_size}: expected at least the "
                f"{tokenizer.vocab_size} tokens of {tokenizer.name}"
            )
        return shape
    published = config.model.preset not in ("nano", "tiny", "small")
    if published and shape.vocab_size >= tokenizer.vocab_size:
        return shape
    # A multiple of 8, so that a tensor axis can split the vocabulary.
    return dataclasses.replace(shape, vocab_size=_round_up(tokenizer.vocab_size, 8))


def build_objective(config: TrainConfig) -> TableFamily:
    """Weights for every group size up to M, from an advantage function or a surrogate.

    Raises:
      SettingsError: unknown name or option, or one the group size cannot serve.
    """
    wanted = config.objective
    advantages, surrogates = objectives.advantages, objectives.surrogates
    rooms = {
        "auto": (advantages, surrogates),
        "advantage": (advantages,),
        "surrogate": (surrogates,),
    }[wanted.kind]
    room = next((room for room in rooms if wanted.name in room.names()), None)
    if room is None:
        known = dict.fromkeys(name for room in rooms for name in room.names())
        raise SettingsError(
            f"objective.name={wanted.name!r}: unknown; "
            f"{settings.nearest(wanted.name, list(known))}"
        )
    method = refused_at("objective.options", room.get, wanted.name, **wanted.options)

    def table(size):
        if room is advantages:
            return method.table(size)
        return objectives.from_surrogate(
            method, size, method=wanted.method, baseline=wanted.baseline
        )

    group_size = config.rollout.group_size
    return refused_at("objective", objectives.table_family, table, group_size)


def _initial_params(config: TrainConfig, model: models.DecoderConfig):
    """A function that loads parameters of another run, or None."""
    if config.model.init_from is None:
        return None
    source = Path(config.model.init_from)
    if not (source / "config.yaml").is_file():
        raise SettingsError(
            f"model.init_from={config.model.init_from!r}: expected the directory of a "
            "run, with a config.yaml"
        )
    stored = settings.load(TrainConfig, source / "config.yaml")
    stored = dataclasses.replace(
        stored, run_dir=str(source), mesh=config.mesh, name=source.name
    )
    other = build_run(stored)
    if other.model != dataclasses.replace(
        model, compute_dtype=other.model.compute_dtype
    ):
        raise SettingsError(
            f"model.init_from={str(source)!r}: its model is {other.model}, expected "
            f"{model}"
        )

    def load():
        # Imported here: the loop needs none of this file, and only this needs the loop.
        from jaxrl_surrogate.training.loop import newest_state

        return newest_state(other)[0].params

    return load


def _that_fit(
    source: Sequence[Problem],
    tokenizer: Tokenizer,
    max_prompt: int,
    max_completion: int | None = None,
) -> Sequence[Problem]:
    """The problems whose prompt, and reference if asked for, fit their lengths.

    Endless sources are left as they are, but looked into: what does not fit is said
    now and not hours later.
    """

    def fits(problem):
        if not 1 <= len(tokenizer.encode(problem.prompt)) <= max_prompt:
            return False
        if max_completion is None:
            return True
        if problem.completion is None:
            raise SettingsError(
                "sft.steps: the task has no reference completion for "
                f"{problem.prompt[:60]!r}; expected 0, no warm start"
            )
        return len(tokenizer.encode(problem.completion)) < max_completion

    limits = f"rollout.max_prompt_length={max_prompt}"
    if max_completion is not None:
        limits += f" and rollout.max_completion_length={max_completion}"
    remedy = "raise the length, or set task.options to shorter problems"
    if len(source) > _SEARCHED:
        for index in range(0, len(source), len(source) // _PROBED):
            if not fits(source[index]):
                shown = source[index].prompt[:60]
                raise SettingsError(f"{limits}: too short for {shown!r}; {remedy}")
        return source
    kept = [index for index in range(len(source)) if fits(source[index])]
    if not kept:
        raise SettingsError(
            f"{limits}: too short for each of {len(source)} problems; {remedy}"
        )
    return source if len(kept) == len(source) else Subset(source, kept)


def _check_divisible(config: TrainConfig, mesh: jax.sharding.Mesh) -> None:
    ways = _batch_ways(mesh)
    part = config.rollout.prompts_per_step // config.train.minibatches
    part = config.train.microbatch_prompts or part
    faults = [
        f"{name}={value}: expected a multiple of {ways}, the devices that share a "
        "batch (mesh.data x mesh.fsdp)"
        for name, value in (
            ("prompts of a microbatch", part),
            ("sft.batch_size", config.sft.batch_size if config.sft.steps else 0),
        )
        if value % ways
    ]
    if faults:
        raise SettingsError("\n".join(faults))


def _batch_ways(mesh: jax.sharding.Mesh) -> int:
    return mesh.shape["data"] * mesh.shape["fsdp"]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
