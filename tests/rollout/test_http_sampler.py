"""Sampling over HTTP, against a server on the loopback that runs the local engine."""

import dataclasses
import json
import socket

import jax
import numpy as np
import pytest
from sampler_server import serving

from jaxrl_surrogate import models, parallel
from jaxrl_surrogate.batch import Prompts
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.rollout import (
    HTTPSampler,
    LocalSampler,
    RolloutConfig,
    SampleRequest,
    SamplerError,
    SamplingConfig,
    http_sampler,
)

MODEL = models.presets.get("nano", vocab_size=32)
ONE = parallel.make_mesh(parallel.MeshConfig(), jax.devices()[:1])
CONFIG = RolloutConfig(
    group_size=3, max_completion_length=5, sampling=SamplingConfig(0.9, top_p=0.95)
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(http_sampler, "FIRST_WAIT_S", 0.01)


@pytest.fixture(scope="module")
def policies():
    draw = jax.jit(lambda key: models.init_params(MODEL, key))
    return [draw(jax.random.key(seed)) for seed in (1, 2)]


@pytest.fixture(scope="module")
def engine():
    return LocalSampler(MODEL, ONE)


@pytest.fixture
def server(engine):
    with serving(dataclasses.replace(engine)) as server:
        yield server


@pytest.fixture
def request_(random):
    prompts = Prompts(
        random.integers(4, 32, size=(4, 6), dtype=np.int32),
        random.integers(1, 7, size=4).astype(np.int32),
        random.integers(2**31, 2**32, size=4).astype(np.uint32),
    )
    # Padding is not sent, and is not looked at.
    prompts.tokens[np.arange(6) >= prompts.lengths[:, None]] = 0
    return SampleRequest(prompts, CONFIG, (0, 1, 2, 3), 7, "rollout", 2)


def test_the_same_engine_gives_the_same_bits_over_http(
    server, engine, policies, request_
):
    remote = HTTPSampler(server.url, 32)
    for version, params in enumerate(policies, 3):
        for sampler in (engine, remote):
            sampler.load(params, version)
        one, other = engine.sample(request_), remote.sample(request_)
        assert (one.policy_step == version).all() and one.loss_mask.any()
        for name, expected in dataclasses.asdict(one).items():
            found = getattr(other, name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
            assert found.tobytes() == expected.tobytes(), name
    remote.load(policies[1], 5)  # which the server has
    assert (remote.sample(request_).policy_step == 5).all()
    assert server.loads == [3, 4]


def test_a_server_with_another_policy_is_given_ours_again(
    server, engine, policies, request_
):
    ours, theirs = (HTTPSampler(server.url, 32) for _ in range(2))
    ours.load(policies[0], 1)
    theirs.load(policies[1], 1)
    engine.load(policies[0], 1)
    found = ours.sample(request_)
    assert found.tokens.tolist() == engine.sample(request_).tokens.tolist()
    assert server.loads == [1, 1, 1]
    server.policy = None  # as after a new start
    assert ours.sample(request_).tokens.tolist() == found.tokens.tolist()


def test_a_connection_that_breaks_is_tried_again(server, policies, request_):
    breaks = [ConnectionError, ConnectionError, 503]

    def spoil(path, answer):
        if path == "/sample" and breaks:
            broken = breaks.pop(0)
            if isinstance(broken, int):
                return broken
            raise broken
        return answer

    server.spoil = spoil
    sampler = HTTPSampler(server.url, 32)
    sampler.load(policies[0], 1)
    assert sampler.sample(request_).lengths.shape == (4, 3) and not breaks


def _changed(change):
    """An answer to /sample whose first completion is changed."""

    def spoil(path, answer):
        if path != "/sample":
            return answer
        answer = json.loads(json.dumps(answer))
        changed = change(answer, answer["completions"][0][0])
        return answer if changed is None else changed

    return spoil


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda whole, one: b"<html>gone</html>",
            "answered '<html>gone.*a JSON object",
        ),
        (lambda whole, one: b"[1]", r"answered '\[1\]'; expected a JSON object"),
        (lambda whole, one: 400, "answered 400 Bad Request: .* .attempt 1 of 5"),
        (lambda whole, one: 503, "answered 503 Service Unavailable.* .attempt 5 of 5"),
        (lambda whole, one: whole.update(policy="x"), "answers for another policy"),
        (lambda whole, one: whole.pop("completions"), "list of 4 prompts, got 'None'"),
        (
            lambda whole, one: whole["completions"].pop(),
            "list of 4 prompts, got 3",
        ),
        (
            lambda whole, one: whole["completions"][1].pop(),
            r"completions\[1\]: expected a list of 3 samples, got 2",
        ),
        (
            lambda whole, one: one.update(logprobs=[float("nan")] * len(one["tokens"])),
            r"completions\[0\]\[0\]: logprobs: expected finite .* got nan",
        ),
        (lambda whole, one: one["logprobs"].append(0), "expected [1-5], a number a"),
        (lambda whole, one: one.update(tokens=[]), "tokens: expected 1 to 5"),
        (lambda whole, one: one["tokens"].__setitem__(0, 32), "below 32, got 32"),
        (lambda whole, one: one["tokens"].__setitem__(0, 4.0), "below 32, got 4.0"),
        (lambda whole, one: one.update(truncated="no"), "truncated='no'"),
        (
            lambda whole, one: one.update(truncated=not one["truncated"]),
            "expected whether no stop token ends it",
        ),
        (
            lambda whole, one: one.update(
                tokens=[1, 5], logprobs=[-1, -1], truncated=True
            ),
            "go on behind a stop token",
        ),
        (
            lambda whole, one: one.update(tokens=[5], logprobs=[-1], truncated=True),
            "truncated after 1 tokens, ",
        ),
        (lambda whole, one: one.pop("tokens"), "expected tokens, logprobs and"),
    ],
)
def test_answers_that_cannot_be_trained_on_are_refused(
    server, policies, request_, change, said
):
    sampler = HTTPSampler(server.url, 32)
    sampler.load(policies[0], 1)

    def silent(whole, one):
        found = change(whole, one)
        return found if isinstance(found, bytes | int) else None

    server.spoil = _changed(silent)
    with pytest.raises(SamplerError, match=said) as caught:
        sampler.sample(request_)
    assert str(caught.value).startswith(f"{server.url}/sample: ")
    server.spoil = None
    assert sampler.sample(request_).lengths.min() >= 1


def test_a_server_that_is_away_or_slow_is_named(server, policies, request_):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(SamplerError, match=f"^{url}/load: .*refused.*5 of 5.*stored"):
        HTTPSampler(url, 32).load(policies[0], 1)
    sampler = HTTPSampler(server.url, 32, timeout_s=0.2)
    sampler.load(policies[0], 1)
    with server.lock:
        said = f"^{server.url}/sample: no answer in 0.2 s"
        with pytest.raises(SamplerError, match=said):
            sampler.sample(request_)
    with pytest.raises(SamplerError, match="call `load`"):
        HTTPSampler(url, 32).sample(request_)


@pytest.mark.parametrize("value", ["remote", "http://", "ftp://host", "http:/host"])
def test_what_is_no_sampler_is_refused(value):
    with pytest.raises(FieldError, match=f"^sampler='{value}': expected local, or"):
        RolloutConfig(sampler=value)
