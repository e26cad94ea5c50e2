"""Reports or refuses, before a run begins, settings that change its objective."""

import numpy as np

from jaxrl_surrogate.assembly.objective import build_objective, named_families
from jaxrl_surrogate.config import TrainConfig
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.objectives import (
    TableFamily,
    WeightTable,
    advantages,
    kept_update,
    mixed_groups,
    mixed_only,
)


def objective_notes(config: TrainConfig) -> tuple[str, ...]:
    """Return one sentence for each setting that changes what the run ascends.

    Raises:
      FieldErrors: with some setting the objective h(p) would decrease for some success
        rate p, so that correct answers would be trained against, or there would be no
        known objective.
    """
    if config.objective.kind == "function":
        return tuple(_of_a_function(config))
    notes = []
    for name, family in named_families(config):
        if config.train.dynamic_sampling_rounds:
            notes += _of_dynamic_sampling(config, name, family.table())
        if config.train.overlong == "mask":
            notes.append(_of_masking(config, name, family))
        trainer_rule = ":" in name and not advantages.is_own_code(name)
        if trainer_rule and config.objective.rewards != "binary":
            trainer = name.partition(":")[0]
            notes.append(
                f"objective.rewards={config.objective.rewards}: graded rewards are "
                f"weighed by the binary weights of {name}, lifted so that they keep "
                f"an objective; that is not what {trainer} does with them"
            )
    return tuple(dict.fromkeys(notes))


def _of_a_function(config: TrainConfig) -> list[str]:
    rule, name = build_objective(config)(1), config.objective.name
    rounds = config.train.dynamic_sampling_rounds
    if rounds and rule.group_size == 1:
        raise _one_sample(rounds)
    notes = [
        f"objective.kind=function: {name} has no exact h(p). On graded rewards it "
        "ascends no objective in general; on rewards of 0 and 1 its mean update is "
        "that of a weight table. Where all rewards are 0 or 1, objective.json and "
        "`jaxrl objective --replay` report the effective objective, measured from the "
        "weights that it gave"
    ]
    if rounds:
        notes.append(
            f"train.dynamic_sampling_rounds={rounds}: groups of equal rewards are "
            "replaced, and those that are left get weights of 0"
        )
    if not rule.takes_mask:
        notes.append(
            f"{name} has no parameter `mask`: a group with a completion that has no "
            "verdict"
            + ", or is cut at the limit," * (config.train.overlong == "mask")
            + " gets weights of 0"
        )
    return notes


def _one_sample(rounds: int) -> FieldError:
    return FieldError(
        "train.dynamic_sampling_rounds",
        rounds,
        "rollout.group_size of 2 or more",
        problem="no group of one sample is both correct and incorrect, so nothing "
        "would be trained",
    )


def _of_dynamic_sampling(
    config: TrainConfig, name: str, table: WeightTable
) -> list[str]:
    setting = (
        "train.dynamic_sampling_rounds",
        config.train.dynamic_sampling_rounds,
    )
    if table.group_size == 1:
        raise _one_sample(config.train.dynamic_sampling_rounds)
    if config.objective.rewards == "mean" and not _sums_to_zero(mixed_only(table)):
        raise FieldError(
            *setting,
            problem="groups of equal graded rewards are replaced, and with "
            f"objective.rewards=mean they carry weight under {name}, so that what is "
            "left has no known objective",
            remedy="take objective.rewards=layer_cake, or a rule whose weights sum to "
            "0 in every group, such as rloo",
        )
    change = mixed_groups.change(table)
    if change is None:
        return []
    if change.falls:
        at = (change.p, change.after, f", not {change.before:.3f}")
        if change.after >= 0:
            at = (change.lowest_at, change.lowest, "")
        raise FieldError(
            *setting,
            problem="groups that are all correct or all incorrect are replaced, and "
            f"without them the objective of {name} falls: at p = {at[0]:.2g} its "
            f"slope h' is {at[1]:.3f}{at[2]}, so that correct answers would be "
            "trained against",
            remedy=f"set it to 0{_instead(config, name, table)}",
        )
    return [
        f"{'='.join(map(str, setting))}: groups that are all correct or all incorrect "
        f"are replaced and weigh nothing, so {name} ascends the objective of mixed "
        f"groups, not its own: at p = {change.p:.2g} the slope h' is "
        f"{change.after:.3f}, not {change.before:.3f}"
    ]


def _of_masking(config: TrainConfig, name: str, family: TableFamily) -> str:
    if config.train.dynamic_sampling_rounds:
        family = mixed_only(family)
    begin = (
        "train.overlong=mask: completions cut at the limit are left out, so "
        f"{name} compares finished ones"
    )
    if config.objective.rewards != "binary":
        return f"{begin}: its objective is that of rewards given that one finished"
    # An example: of ten completions three are correct, three incorrect and four cut.
    kept, right = 0.6, 0.5
    on_right, on_kept = kept_update(family, kept, right)
    example = (
        f"{begin}. Where 30% are correct, 30% incorrect and 40% cut, its mean update is"
    )

    def near(one, other):
        return abs(one - other) <= 1e-9 * abs(on_right)

    if near(on_kept, right * on_right):
        return f"{example} {on_right / kept:.3f} x grad P(correct)"
    example = f"{example} {on_right:.3f} x grad P(correct | finished)"
    if near(on_kept, 0):
        return f"{example}, and nothing trains it to finish"
    sign, way = "+", "finish"
    if on_kept < 0:
        sign, way = "-", "be cut rather than incorrect"
    return (
        f"{example} {sign} {abs(on_kept):.3f} x grad log P(finished): it is trained to "
        f"{way}"
    )


def _sums_to_zero(table: WeightTable) -> bool:
    """Return whether the weights of every group sum to 0."""
    size = table.group_size
    right = np.arange(1, size + 1)
    sums = right * table.correct
    sums[:-1] += (size - right[:-1]) * table.incorrect[1:]
    scale = max(np.abs(table.correct).max(), np.abs(table.incorrect).max())
    return table.incorrect[0] == 0 and np.abs(sums).max() <= 1e-9 * size * scale


def _instead(config: TrainConfig, name: str, table: WeightTable) -> str:
    """Return a remedy: rules whose equal objective dynamic sampling does not change."""
    wanted = config.objective
    given = wanted.options if name == wanted.name else wanted.schedule.options
    found = []
    for name in advantages.names():
        taken = advantages.parameters(name)
        options = {key: value for key, value in given.items() if key in taken}
        try:
            other = advantages.table(name, table.group_size, **options)
        except ValueError:
            continue
        same = np.allclose(other.gap, table.gap, rtol=1e-9)
        if same and mixed_groups.change(other) is None:
            found.append(f"objective.name={name}")
    return f", or take {' or '.join(found)}, with this objective" if found else ""
