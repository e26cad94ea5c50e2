"""Selects the sinks that receive the metrics of a run."""

from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.telemetry.sinks import OpenSink, TensorBoardSink


def metric_sinks(config: TrainConfig) -> tuple[OpenSink, ...]:
    """Return the opener of each sink that the config asks for beside metrics.jsonl."""
    wanted = {TensorBoardSink: config.log.tensorboard}
    return tuple(sink for sink, on in wanted.items() if on)
