"""Which sinks are given the metrics of a run."""

from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.telemetry.sinks import OpenSink, TensorBoardSink


def metric_sinks(config: TrainConfig) -> tuple[OpenSink, ...]:
    """What opens each sink beside metrics.jsonl; a new sink is one line here."""
    wanted = {TensorBoardSink: config.log.tensorboard}
    return tuple(sink for sink, on in wanted.items() if on)
