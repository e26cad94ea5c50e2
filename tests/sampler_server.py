"""A sampling server for tests: the local engine behind HTTP, on the loopback."""

import contextlib
import io
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from jaxrl_surrogate.batch import Prompts
from jaxrl_surrogate.rollout import RolloutConfig, SampleRequest, SamplingConfig


class Server(ThreadingHTTPServer):
    """`sampler` answers; `spoil` may change an answer before it is sent.

    Attributes:
      loads: versions that were loaded, in order.
      samples: how many requests for completions were answered.
      spoil: None, or `(path, answer) -> answer`; may return bytes, a status, or raise
        ConnectionError to close the connection without an answer.
    """

    daemon_threads = True

    def __init__(self, sampler, params_like):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sampler, self.params_like = sampler, params_like
        self.lock, self.policy = threading.Lock(), None
        self.loads, self.samples, self.spoil = [], 0, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, address):
        pass  # a client that went away is what some tests are about

    def load(self, query, body):
        arrays = np.load(io.BytesIO(body))
        params = {}
        for path in arrays.files:
            *parents, name = path.split("/")
            node = params
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = arrays[path]
        self.policy, version = query["policy"][0], int(query["version"][0])
        self.sampler.load(self.params_like(params), version)
        self.loads.append(version)
        return {"policy": self.policy}

    def sample(self, body):
        asked = json.loads(body)
        if asked["policy"] != self.policy:
            return 409
        rows = asked["prompts"]
        tokens = np.zeros((len(rows), asked["max_prompt_length"]), np.int32)
        for row, prompt in zip(tokens, rows, strict=True):
            row[: len(prompt["tokens"])] = prompt["tokens"]
        lengths = np.int32([len(prompt["tokens"]) for prompt in rows])
        ids = np.uint32([prompt["id"] for prompt in rows])
        done = self.sampler.sample(
            SampleRequest(
                Prompts(tokens, lengths, ids),
                RolloutConfig(
                    group_size=asked["group_size"],
                    max_completion_length=asked["max_length"],
                    sampling=SamplingConfig(**asked["sampling"]),
                ),
                tuple(asked["stop_tokens"]),
                **asked["randomness"],
            )
        )
        self.samples += 1
        return {
            "policy": self.policy,
            "completions": [
                [
                    {
                        "tokens": done.tokens[g, m, :length].tolist(),
                        "logprobs": done.sampler_logprobs[g, m, :length].tolist(),
                        "truncated": bool(done.truncated[g, m]),
                    }
                    for m, length in enumerate(row)
                ]
                for g, row in enumerate(done.lengths)
            ],
        }


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urllib.parse.urlsplit(self.path)
        with self.server.lock:
            if url.path == "/load":
                answer = self.server.load(urllib.parse.parse_qs(url.query), body)
            else:
                answer = self.server.sample(body)
            if self.server.spoil is not None:
                answer = self.server.spoil(url.path, answer)
        status = answer if isinstance(answer, int) else 200
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


@contextlib.contextmanager
def serving(sampler, params_like=lambda params: params):
    """A server in a thread of this process."""
    with Server(sampler, params_like) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
