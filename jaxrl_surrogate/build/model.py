"""The tokenizer of a run and a decoder with room for it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from jaxrl_surrogate import models, settings, tasks
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.faults import refused_at
from jaxrl_surrogate.parallel import hosts
from jaxrl_surrogate.settings import SettingsError
from jaxrl_surrogate.tasks import Task, Tokenizer


def build_tokenizer(
    name: str, task: Task, directory: Path, own: Callable[[], object] | None = None
) -> Tokenizer:
    """A tokenizer by name; `bpe:SIZE` is the one that the run trained for itself.

    Args:
      name: as `task.tokenizer`.
      task: whose training texts it learns from.
      directory: of the run; the tokenizer is its tokenizer.json.
      own: makes the run directory this process's own. The first host calls it and
        trains what is missing; the others wait for that. None: a reader, who writes
        nothing.

    Raises:
      ValueError: no such tokenizer, or a reader finds none.
    """
    if not name.startswith("bpe:"):
        return tasks.tokenizers.get(name)
    size = name.removeprefix("bpe:")
    if not size.isdecimal() or int(size) < 257:
        raise ValueError(
            f"tokenizer={name!r}: expected bpe:SIZE with SIZE at least 257"
        )
    path = directory / "tokenizer.json"
    if own is None and not path.exists():
        raise ValueError(
            f"tokenizer={name!r}: there is no {path}, where the run keeps it; put it "
            "back, or let `jaxrl train` make it again"
        )
    # Asked of all: a host that looks later would find it made, and not wait.
    if own is not None and hosts.any_of(not path.exists()):
        if hosts.is_first():
            own()
            if not path.exists():  # who had the run before may have made it
                tasks.tokenizers.train_bpe(_texts(task), int(size), path)
        hosts.wait_for_all("tokenizer")
    return tasks.tokenizers.get(str(path))


def _texts(task: Task) -> Iterator[str]:
    for index in range(min(len(task.train), 20_000)):
        problem = task.train[index]
        yield problem.prompt + (problem.completion or "")


def stop_tokens(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that end a completion: the end token and each text's one token."""
    ids = {text: tokenizer.encode(text) for text in texts}
    faults = [
        f"rollout.stop={text!r}: {tokenizer.name} spells it in {len(found)} tokens; "
        "expected texts of one token each"
        for text, found in ids.items()
        if len(found) != 1
    ]
    if faults:
        raise SettingsError("\n".join(faults))
    return tuple({tokenizer.eos_id: None} | {found[0]: None for found in ids.values()})


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
    return dataclasses.replace(shape, vocab_size=-(-tokenizer.vocab_size // 8) * 8)
