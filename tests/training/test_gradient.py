"""The real rollout and the real step against the gradient of E[h_M(p)], by enumeration.

Every completion of a small model can be listed, so p, h_M(p) and the gradient of its
mean over prompts are exact. The step's mean gradient over rollouts must come nearer as
one over the root of the number of rollouts, for every objective.
"""

import functools
import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl_surrogate import models, objectives, parallel, rng
from jaxrl_surrogate.batch import Batch, Prompts
from jaxrl_surrogate.losses import LossConfig
from jaxrl_surrogate.rollout import DecodeConfig, SamplingConfig, rollout
from jaxrl_surrogate.training.state import new_state
from jaxrl_surrogate.training.step import UpdateConfig, make_update

CONFIG = models.presets.get(
    "nano", vocab_size=4, num_layers=1, embed_dim=8, head_dim=4, mlp_dim=8
)
LENGTH, GROUP, STOP = 2, 4, 0
PROMPTS = np.array([[1, 2], [3, 1]], np.int32)
RIGHT = [{(1, 0), (2, 3)}, {(0,), (3, 3), (1, 2), (2, 0)}]
MESH = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])


def _completions():
    """Every completion: it ends with the stop token or at the longest length."""
    for tokens in itertools.product(range(4), repeat=LENGTH):
        if STOP in tokens:
            end = tokens.index(STOP) + 1
            if any(tokens[end:]):
                continue
            yield tokens[:end]
        else:
            yield tokens


def _success(params):
    """(2,) probability of a right completion of each prompt."""
    listed = list(_completions())
    tokens = np.array([c + (0,) * (LENGTH - len(c)) for c in listed], np.int32)
    mask = np.arange(LENGTH) < np.array([len(c) for c in listed])[:, None]
    scores = models.completion_scores(
        CONFIG, params, PROMPTS, np.full(2, 2, np.int32), np.stack([tokens] * 2)
    ).logprobs
    probabilities = jnp.exp(jnp.where(mask[None], scores, 0).sum(-1))
    right = np.array([[c in answers for c in listed] for answers in RIGHT])
    return jnp.where(right, probabilities, 0).sum(-1), probabilities.sum(-1)


def _code(tokens):
    """(..., T) tokens to one integer; what follows a stop token is 0."""
    return (tokens * 4 ** np.arange(LENGTH)).sum(-1)


def _advantage(name, **settings):
    return objectives.advantages.get(name, **settings).table


OBJECTIVES = {
    "rloo": _advantage("rloo"),
    "grpo": _advantage("grpo"),
    "rejection_sampling": _advantage("rejection_sampling"),
    "rloo_pass_at_k": _advantage("rloo_pass_at_k", k=2),
    "log": functools.partial(
        objectives.from_surrogate, objectives.surrogates.get("log")
    ),
}


@pytest.fixture(scope="module")
def params():
    drawn = models.init_params(CONFIG, jax.random.key(5))
    return jax.device_get(jax.tree.map(lambda leaf: 1.5 * leaf, drawn))


@pytest.fixture(scope="module")
def step():
    update = UpdateConfig(LossConfig(normalization="sequence_sum"), SamplingConfig())
    return make_update(CONFIG, update, optax.sgd(1.0), MESH)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_step_climbs_the_objective_it_is_given(name, params, step):
    family = objectives.table_family(OBJECTIVES[name], GROUP)
    surrogate = objectives.induced_surrogate(family.table())
    np.testing.assert_allclose(jax.jit(_success)(params)[1], 1, rtol=1e-5)

    def objective(params):
        return surrogate.value(_success(params)[0]).mean()

    exact, _ = jax.flatten_util.ravel_pytree(jax.jit(jax.grad(objective))(params))
    exact = np.asarray(exact)
    copies, rounds = 1024, 16
    prompts = np.tile(PROMPTS, (copies, 1))
    decode = DecodeConfig(group_size=GROUP, max_length=LENGTH, stop_tokens=(STOP,))
    is_right = np.zeros((2, 4**LENGTH), np.float32)
    for prompt, answers in enumerate(RIGHT):
        for answer in answers:
            padded = answer + (0,) * (LENGTH - len(answer))
            is_right[prompt, _code(np.array(padded))] = 1
    estimates = []
    for index in range(rounds):
        ids = np.arange(2 * copies, dtype=np.uint32)
        batch = Prompts(prompts, np.full(2 * copies, 2, np.int32), ids)
        key = rng.stream_key(11, name, index)
        done = jax.device_get(rollout(CONFIG, decode, params, batch, key))
        rewards = is_right[np.arange(2 * copies)[:, None] % 2, _code(done.tokens)]
        whole = Batch(batch, done, rewards, np.ones(rewards.shape, bool))
        state = new_state(jax.device_put(params), optax.sgd(1.0))
        state, _ = step(state, whole, family, None)
        gained = jax.tree.map(
            lambda new, old: np.asarray(new) - old, state.params, params
        )
        estimates.append(np.asarray(jax.flatten_util.ravel_pytree(gained)[0]))
    estimates = np.stack(estimates)

    def error(size):
        means = estimates.reshape(rounds // size, size, -1).mean(1)
        return np.sqrt(((means - exact) ** 2).sum(-1).mean())

    # The error of the mean of n estimates falls as n^-1/2, to nothing: a bias of a
    # quarter of the gradient, such as a wrong constant, would stop it.
    errors = {size: error(size) / np.linalg.norm(exact) for size in (1, 4, 16)}
    print(name, errors)
    assert errors[16] < 0.06
    assert 1.4 < errors[1] / errors[4] < 2.9
    assert errors[16] < errors[4]
