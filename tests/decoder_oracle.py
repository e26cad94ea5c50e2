"""The decoder from its equations: float64 NumPy, one sequence, one head, one position.

Written without a look at the package's way of computing: no batch, no cache, no shared
prefix, rotations as complex numbers, norms and attention in loops. Also the losses of
whole batches that are built on it.
"""

import jax
import numpy as np


def random_params(abstract, random, scale=0.4):
    """Normal values for every leaf, biases and norm scales too, as float32."""
    return jax.tree.map(
        lambda leaf: (scale * random.normal(size=leaf.shape)).astype(np.float32),
        abstract,
    )


def slopes(value, params, grads, direction):
    """The slope of `value` along a direction: by `grads`, and by central differences.

    `value` is computed in float64, so its differences are exact to about 1e-8.
    """
    by_grads = jax.tree.map(
        lambda g, d: np.vdot(np.asarray(g, np.float64), d), grads, direction
    )
    ends = [
        value(
            jax.tree.map(lambda p, d, s=step: p + s * np.float64(d), params, direction)
        )
        for step in (1e-5, -1e-5)
    ]
    return sum(jax.tree.leaves(by_grads)), (ends[0] - ends[1]) / 2e-5


def decoder_logits(config, params, tokens):
    """(N,) tokens to (N, V) logits; `params` any nested dict of arrays."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = params["embedding"][np.asarray(tokens)]
    if config.scale_embeddings:
        x = x * np.sqrt(config.embed_dim)
    before, after = config.norm_placement != "post", config.norm_placement != "pre"
    for layer in range(config.num_layers):
        block = jax.tree.map(lambda leaf, i=layer: leaf[i], params["layers"])
        seen = _norm(config, x, block["attention_norm"]) if before else x
        out = _attention(config, block["attention"], seen, layer)
        x = x + (_norm(config, out, block["attention_post_norm"]) if after else out)
        read = _norm(config, x, block["mlp_norm"]) if before else x
        out = _mlp(config, block["mlp"], read)
        x = x + (_norm(config, out, block["mlp_post_norm"]) if after else out)
    head = params["embedding"] if config.tie_embeddings else params["head"]
    return _capped(
        config.final_softcap, _norm(config, x, params["final_norm"]) @ head.T
    )


def _norm(config, x, p):
    scale = 1 + p["scale"] if config.zero_centred_norms else p["scale"]
    return scale * x / np.sqrt(np.mean(x**2, -1, keepdims=True) + config.norm_eps)


def _capped(cap, x):
    return cap * np.tanh(x / cap) if cap else x


def _speed(config, i, local):
    """Radians a position of the feature pair i."""
    theta = config.rope_theta
    if local and config.rope_local_theta:
        return config.rope_local_theta ** (-2 * i / config.head_dim)
    speed = theta ** (-2 * i / config.head_dim)
    if config.rope_scaling == "linear":
        return speed / config.rope_factor
    if config.rope_scaling == "llama3":
        length = config.rope_original_length
        wavelength = 2 * np.pi / speed
        if wavelength > length / config.rope_low_freq_factor:
            return speed / config.rope_factor
        if wavelength > length / config.rope_high_freq_factor:
            smooth = (length / wavelength - config.rope_low_freq_factor) / (
                config.rope_high_freq_factor - config.rope_low_freq_factor
            )
            return (1 - smooth) * speed / config.rope_factor + smooth * speed
    return speed


def _rotary(config, x, position, local):
    """Feature pairs (i, i + H/2) of one head at one position, as complex numbers."""
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    speed = np.array([_speed(config, i, local) for i in range(half)])
    turned = pairs * np.exp(1j * position * speed)
    return np.concatenate([turned.real, turned.imag])


def _attention(config, p, x, layer):
    out = np.zeros_like(x)
    kernels = {n: p[n]["kernel"] for n in "qkv"}
    biases = {n: p[n].get("bias", np.zeros(kernels[n].shape[1:])) for n in "qkv"}
    assert ("bias" in p["q"]) == config.attention_bias
    local = config.sliding_window and not (
        config.global_every and layer % config.global_every == config.global_every - 1
    )
    reach = config.sliding_window if local else len(x)
    root = np.sqrt(config.query_pre_attn_scalar or config.head_dim)
    group = config.num_heads // config.num_kv_heads
    whole = config.qk_norm and config.qk_norm_over == "projection"
    if whole:
        shares = {
            n: 1
            / np.sqrt(
                np.mean(
                    (np.einsum("nd,dkh->nkh", x, kernels[n]) + biases[n]) ** 2, (1, 2)
                )
                + config.norm_eps
            )
            for n in "qk"
        }
    for head in range(config.num_heads):
        kv = head // group
        q, k, v = (
            x @ kernels[n][:, h] + biases[n][h]
            for n, h in (("q", head), ("k", kv), ("v", kv))
        )
        if whole:
            q = q * shares["q"][:, None] * p["q_norm"]["scale"][head]
            k = k * shares["k"][:, None] * p["k_norm"]["scale"][kv]
        elif config.qk_norm:
            q, k = _norm(config, q, p["q_norm"]), _norm(config, k, p["k_norm"])
        q = [_rotary(config, row, i, local) for i, row in enumerate(q)]
        k = [_rotary(config, row, i, local) for i, row in enumerate(k)]
        for i in range(len(x)):
            seen = range(max(0, i - reach + 1), i + 1)
            scores = np.array([q[i] @ k[j] for j in seen]) / root
            scores = _capped(config.attention_softcap, scores)
            weights = np.exp(scores - scores.max())
            mixed = sum(w * v[j] for w, j in zip(weights, seen, strict=True))
            out[i] += mixed / weights.sum() @ p["out"]["kernel"][head]
    return out + (p["out"]["bias"] if config.attention_out_bias else 0)


def _mlp(config, p, x):
    if config.num_experts:
        return np.stack([_mixture(config, p, row) for row in x])

    def linear(name, x):
        return x @ p[name]["kernel"] + (p[name]["bias"] if config.mlp_bias else 0)

    return linear("down", _gate(config, linear("gate", x)) * linear("up", x))


def _gate(config, x):
    if config.activation == "silu":
        return x / (1 + np.exp(-x))
    # the tanh form of GELU, Hendrycks and Gimpel, arXiv 1606.08415
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))


def _mixture(config, p, row):
    """The likeliest experts of one row, weighed by their probabilities."""
    shares = _softmax(row @ p["router"])
    chosen = np.argsort(-shares)[: config.experts_per_token]
    total = shares[chosen].sum() if config.normalize_experts else 1.0
    return sum(
        shares[e]
        / total
        * (_gate(config, row @ p["gate"][e]) * (row @ p["up"][e]) @ p["down"][e])
        for e in chosen
    )


def truncated_logprobs(sampling, logits):
    """(V,) logits to log-probabilities of the sampling distribution, by its words.

    A token is kept where fewer than k are likelier, where all likelier ones together
    have less than top_p, and where it has min_p of the likeliest.
    """
    logits = np.asarray(logits, np.float64)
    if sampling.temperature:
        logits = logits / sampling.temperature
    kept = np.ones(len(logits), bool)
    if sampling.top_k:
        likelier = (logits[None] > logits[:, None]).sum(1)
        kept &= likelier < sampling.top_k
    p = _softmax(np.where(kept, logits, -np.inf))
    if sampling.top_p < 1:
        likelier = np.array([p[p > each].sum() for each in p])
        kept &= likelier < sampling.top_p
    kept &= p >= sampling.min_p * p.max()
    with np.errstate(divide="ignore"):
        return np.log(_softmax(np.where(kept, logits, -np.inf)))


def _softmax(logits):
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def token_scores(config, params, prompts, completions, sampling):
    """Log-probabilities and entropies (G, M, T) of a batch, 0 past ends; float64."""
    logprobs = np.zeros(completions.tokens.shape)
    entropy = np.zeros(completions.tokens.shape)
    for g, m in np.ndindex(*completions.lengths.shape):
        start, length = int(prompts.lengths[g]), int(completions.lengths[g, m])
        tokens = np.asarray(completions.tokens[g, m][:length])
        whole = np.concatenate([np.asarray(prompts.tokens[g][:start]), tokens])
        logits = decoder_logits(config, params, whole)[start - 1 : -1]
        for t, row in enumerate(logits):
            each = truncated_logprobs(sampling, row)
            logprobs[g, m, t] = each[tokens[t]]
            p = np.exp(each)
            entropy[g, m, t] = -(p[p > 0] * each[p > 0]).sum()
    return logprobs, entropy


def batch_loss(
    loss,
    logprobs,
    old,
    advantages,
    entropy,
    ref,
    lengths,
    sample_mask,
    loss_mask=None,
):
    """The loss of a whole batch, a loop over its tokens.

    Tokens that the policy can no longer sample (-inf) have no score: they add nothing.

    Args:
      loss: `LossConfig`.
      logprobs, old, entropy, ref: (G, M, T); ref None without KL.
      advantages: (G, M).
      lengths: (G, M) int.
      sample_mask: (G, M) bool.
      loss_mask: (G, M, T) bool, tokens that the policy chose; None: all.
    """
    chosen = [
        [
            [t for t in range(int(n)) if loss_mask is None or loss_mask[g, m, t]]
            for m, n in enumerate(row)
        ]
        for g, row in enumerate(lengths)
    ]
    num_prompts = sum(bool(row.any()) for row in sample_mask)
    tokens_of_batch = sum(len(chosen[g][m]) for g, m in np.argwhere(sample_mask))
    total = 0.0
    for g, m in np.argwhere(sample_mask):
        share = 1 / (num_prompts * sample_mask[g].sum())
        weight = {
            "sequence_sum": share,
            "dr_grpo": share / logprobs.shape[-1],
            "grpo": share / max(len(chosen[g][m]), 1),
            "dapo": 1 / max(tokens_of_batch, 1),
        }[loss.normalization]
        for t in chosen[g][m]:
            advantage, new = advantages[g, m], logprobs[g, m, t]
            if np.isneginf(new):
                continue
            if loss.policy == "policy_gradient":
                gain = advantage * new
            else:
                ratio = np.exp(new - old[g, m, t])
                low, high = 1 - loss.clip_low, 1 + loss.clip_high
                gain = min(ratio * advantage, min(max(ratio, low), high) * advantage)
            gain += loss.entropy_coef * entropy[g, m, t]
            if ref is not None:
                gap = new - ref[g, m, t]
                kl = {"k1": gap, "k2": gap**2 / 2, "k3": np.exp(-gap) - 1 + gap}
                gain -= loss.kl_coef * kl[loss.kl_estimator]
            total -= weight * gain
    return total
