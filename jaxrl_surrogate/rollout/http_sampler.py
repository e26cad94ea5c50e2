"""A client of a sampling server: sends it parameters and receives completions.

The client sends two kinds of POST requests. docs/http_sampler.md describes each field.

    URL/load?version=V&policy=ID   body: the parameters, .npz of float32 arrays by path
                                   answer: {"policy": ID}
    URL/sample                     body and answer: JSON

ID is a digest of the parameters, and is part of every request and every answer. A
server that holds another policy, because it was restarted or because another run has
loaded its own parameters, answers /sample with status 409. The client then loads its
policy again. It never accepts completions of another policy.
"""

import dataclasses
import hashlib
import http.client
import io
import json
import math
import time
import urllib.error
import urllib.request
from typing import Any

import jax
import numpy as np

from jaxrl_surrogate import models
from jaxrl_surrogate.batch import Completions
from jaxrl_surrogate.errors import FieldError
from jaxrl_surrogate.rollout.sampler import SampleRequest, SamplerError

ATTEMPTS = 5
FIRST_WAIT_S = 1.0  # before the second attempt; each further wait is twice as long

_SHOWN = 200  # characters of an answer in an error
_BUSY = (502, 503, 504)  # statuses after which the request is repeated
_OTHER_POLICY = 409


class HTTPSampler:
    """A `Sampler` that asks a sampling server for completions."""

    def __init__(self, url: str, vocab_size: int, timeout_s: float = 600.0):
        """Set the server's address; nothing is sent yet.

        Args:
          url: the server's address, such as "http://host:8000".
          vocab_size: size of the vocabulary; larger token ids in an answer are errors.
          timeout_s: seconds that one request may take.

        Raises:
          FieldError: of the field `sampler`, if several processes train together.
        """
        if jax.process_count() > 1:
            raise FieldError(
                "sampler", url, "local where several processes train together"
            )
        self._url, self._vocab_size = url.rstrip("/"), vocab_size
        self._timeout_s = timeout_s
        self._params, self._version = None, 0
        self._policy, self._sent = "", ""  # IDs of our policy and of the server's

    def load(self, params: models.Params, version: int) -> None:
        """Send a policy to the server unless it has it already; see `Sampler.load`."""
        self._params, self._version = params, version
        self._policy = _policy_id(_by_path(params))
        if self._policy != self._sent:
            self._send()

    def sample(self, request: SampleRequest) -> Completions:
        """Ask the server for completions; see `Sampler.sample`.

        If the server holds another policy, ours is sent once more.
        """
        if self._params is None:
            raise SamplerError(f"{self._url}: no policy was loaded; call `load` first")
        body = json.dumps(_request(request, self._policy)).encode()
        answer = self._post("/sample", body, "application/json")
        if answer is None:
            self._send()
            answer = self._post("/sample", body, "application/json")
        if answer is None or answer.get("policy") != self._policy:
            raise SamplerError(
                f"{self._url}/sample: answers for another policy than it was given "
                f"after step {self._version}; does another run use this server?"
            )
        return self._completions(request, answer)

    def _send(self) -> None:
        arrays, body = _by_path(self._params), io.BytesIO()
        np.savez(body, **arrays)
        path = f"/load?version={self._version}&policy={self._policy}"
        answer = self._post(path, body.getvalue(), "application/octet-stream")
        if answer is None or answer.get("policy") != self._policy:
            raise SamplerError(
                f"{self._url}/load: answered {_short(answer)}; expected "
                f'{{"policy": "{self._policy}"}}'
            )
        self._sent = self._policy

    def _post(self, path: str, body: bytes, kind: str) -> dict | None:
        """Return the answer's JSON object, or None if the server has another policy."""
        url = self._url + path
        wait, fault = FIRST_WAIT_S, ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(wait)
                wait *= 2
            sent = urllib.request.Request(url, body, {"Content-Type": kind})
            try:
                with urllib.request.urlopen(sent, timeout=self._timeout_s) as answer:
                    return self._json(path, answer.read())
            except urllib.error.HTTPError as error:
                if error.code == _OTHER_POLICY:
                    return None
                said = error.read().decode("utf-8", "replace")
                fault = f"answered {error.code} {error.reason}: {_short(said)}"
                if error.code not in _BUSY:
                    break
            except TimeoutError:
                fault = f"no answer in {self._timeout_s:g} s"
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                fault = str(reason) or type(error).__name__
        raise SamplerError(
            f"{self._url}{path.partition('?')[0]}: {fault} (attempt {attempt + 1} of "
            f"{ATTEMPTS}). What was sampled and trained before is stored; start the "
            "server, and the run again"
        )

    def _json(self, path: str, content: bytes) -> dict:
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise SamplerError(
                f"{self._url}{path.partition('?')[0]}: answered "
                f"{_short(content.decode('utf-8', 'replace'))}; expected a JSON object"
            )
        return found

    def _completions(self, request: SampleRequest, answer: dict) -> Completions:
        """Check every value of an answer and convert it to arrays."""
        shape = (len(request.prompts.ids), request.rollout.group_size)
        longest = request.rollout.max_completion_length
        groups = answer.get("completions")
        self._expect(groups, shape[0], "completions", "prompts")
        tokens = np.zeros((*shape, longest), np.int32)
        logprobs = np.zeros(tokens.shape, np.float32)
        lengths, truncated = np.zeros(shape, np.int32), np.zeros(shape, bool)
        for g, group in enumerate(groups):
            self._expect(group, shape[1], f"completions[{g}]", "samples")
            for m, one in enumerate(group):
                fault = _fault(one, request, self._vocab_size)
                if fault:
                    raise SamplerError(
                        f"{self._url}/sample: completions[{g}][{m}]: {fault}"
                    )
                length = len(one["tokens"])
                tokens[g, m, :length] = one["tokens"]
                logprobs[g, m, :length] = one["logprobs"]
                lengths[g, m], truncated[g, m] = length, one["truncated"]
        return Completions(
            tokens=tokens,
            lengths=lengths,
            truncated=truncated,
            sampler_logprobs=logprobs,
            loss_mask=np.arange(longest)[None, None] < lengths[..., None],
            policy_step=np.full(shape, self._version, np.int32),
        )

    def _expect(self, found: Any, count: int, name: str, what: str) -> None:
        if not isinstance(found, list) or len(found) != count:
            many = len(found) if isinstance(found, list) else _short(found)
            raise SamplerError(
                f"{self._url}/sample: {name}: expected a list of {count} {what}, got "
                f"{many}"
            )


def _request(request: SampleRequest, policy: str) -> dict:
    """Return a request as JSON values."""
    prompts = request.prompts
    rows = zip(prompts.ids, prompts.tokens, prompts.lengths, strict=True)
    return {
        "policy": policy,
        "prompts": [
            {"id": int(number), "tokens": tokens[:length].tolist()}
            for number, tokens, length in rows
        ],
        "max_prompt_length": prompts.tokens.shape[1],
        "group_size": request.rollout.group_size,
        "max_length": request.rollout.max_completion_length,
        "stop_tokens": list(request.stop_tokens),
        "sampling": dataclasses.asdict(request.rollout.sampling),
        "randomness": {
            "seed": request.seed,
            "stream": request.stream,
            "step": request.step,
        },
    }


def _fault(one: Any, request: SampleRequest, vocab_size: int) -> str | None:
    """Return what is invalid in one completion of an answer, or None."""
    if not isinstance(one, dict) or {"tokens", "logprobs", "truncated"} - one.keys():
        return f"expected tokens, logprobs and truncated, got {_short(one)}"
    tokens, logprobs, cut = one["tokens"], one["logprobs"], one["truncated"]
    longest = request.rollout.max_completion_length
    if not isinstance(tokens, list) or not 1 <= len(tokens) <= longest:
        return f"tokens: expected 1 to {longest}, got {_short(tokens)}"
    wrong = [t for t in tokens if type(t) is not int or not 0 <= t < vocab_size]
    if wrong:
        return f"tokens: expected integers below {vocab_size}, got {wrong[0]!r}"
    if not isinstance(logprobs, list) or len(logprobs) != len(tokens):
        return f"logprobs: expected {len(tokens)}, a number a token"
    wrong = [p for p in logprobs if type(p) not in (int, float) or not _is_logprob(p)]
    if wrong:
        return f"logprobs: expected finite numbers of at most 0, got {wrong[0]!r}"
    stops = [token in request.stop_tokens for token in tokens]
    if any(stops[:-1]):
        return "tokens: go on behind a stop token"
    if not isinstance(cut, bool) or cut == stops[-1]:
        return f"truncated={cut!r}: expected whether no stop token ends it"
    if cut and len(tokens) != longest:
        return (
            f"truncated after {len(tokens)} tokens, expected {longest} or a stop token"
        )
    return None


def _is_logprob(value: float) -> bool:
    return math.isfinite(value) and value < 1e-3  # rounding may leave it above 0


def _by_path(params: models.Params) -> dict[str, np.ndarray]:
    """Copy parameters to the host and return them by path."""
    leaves = jax.tree.leaves_with_path(jax.device_get(params))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def _policy_id(arrays: dict[str, np.ndarray]) -> str:
    """Return 128 bits of the SHA-256 of parameters, their paths, dtypes and shapes."""
    digest = hashlib.sha256()
    for path, array in arrays.items():
        digest.update(f"{path}{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:32]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text[:_SHOWN])
