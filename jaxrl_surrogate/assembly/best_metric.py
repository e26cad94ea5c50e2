"""Checks that checkpoint.best_metric can rank the checkpoints of a run."""

import math

from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError, unknown
from jaxrl_surrogate.loop.config import CheckpointConfig
from jaxrl_surrogate.losses import term_metrics
from jaxrl_surrogate.telemetry import metric_names


def check_best_metric(config: TrainConfig) -> None:
    """Check that `checkpoint.best_metric` can rank the stored checkpoints.

    Raises:
      FieldError: the metric is set while checkpoint.keep_best is 0, no metric has this
        name, or it is not measured at any stored step before the last one.
    """
    wanted, plan = config.checkpoint, config.eval
    given = ("best_metric", wanted.best_metric)
    if not wanted.keep_best:
        if wanted.best_metric != CheckpointConfig.best_metric:
            raise FieldError(
                *given,
                problem="nothing is kept by it",
                remedy="set checkpoint.keep_best to a number of checkpoints",
            )
        return
    group_size, samples = config.rollout.group_size, plan.samples
    of_steps = metric_names.of_a_step(group_size, term_metrics(config.loss))
    scores = metric_names.of_an_evaluation(metric_names.evaluated_ks(samples))
    if wanted.best_metric in of_steps:
        return
    if wanted.best_metric not in scores:
        raise unknown(*given, (*of_steps, *scores), "metric")
    if not plan.prompts:
        raise FieldError(
            *given,
            "a metric of every step, such as reward, or test problems",
            problem="is not measured with eval.prompts=0",
        )
    between = plan.every and math.lcm(plan.every, wanted.every) < config.train.steps
    if not between and not (plan.every and wanted.every_minutes):
        raise FieldError(
            *given,
            "an eval.every that meets checkpoint.every before train.steps, or a metric "
            "of every step",
            problem=f"with eval.every={plan.every} and checkpoint.every={wanted.every} "
            "it is measured at no stored step but the last step, so that keep_best has "
            "nothing to choose from",
        )
