"""The model in ordinary binary64, unquantised: what the exact arithmetic approximates. For tests."""

import math

import numpy as np

from layers import frequencies


def logits(model, ids):
    """([tokens, vocabulary], for each layer of experts the chosen ids [tokens, chosen], ascending)."""
    config, routes, tokens = model.config, [], np.arange(len(ids))
    angles = np.outer(tokens, frequencies(config.theta, config.head_dim, config.scaling))
    x = model.tensors["model.embed_tokens.weight"].astype(float)[ids]
    for n in range(config.layers):
        at = f"model.layers.{n}."
        x = x + attend(model, at + "self_attn.", norm(model, at + "input_layernorm", x), angles, config.windows[n])
        h = norm(model, at + "post_attention_layernorm", x)
        x = x + (experts(model, at + "mlp.", h, routes) if config.experts[n] else gated(model, at + "mlp.", h))
    return linear(model, "lm_head", norm(model, "model.norm", x)), routes


def linear(model, path, x):
    y = x @ model.float_weight(path).T.astype(float)
    if path + ".bias" in model.tensors:
        y = y + model.vector(path + ".bias")
    if path in model.adapters:
        a, b, g = (part.astype(float) for part in model.adapters[path])
        y = y + x @ a.T @ b.T * g
    return y


def norm(model, name, x):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + model.config.eps) * model.vector(name + ".weight")


def attend(model, at, h, angles, window):
    config = model.config
    shape = len(h), -1, config.head_dim
    q, k, v = (linear(model, at + name, h).reshape(shape) for name in ("q_proj", "k_proj", "v_proj"))
    if config.head_norms:
        q, k = norm(model, at + "q_norm", q), norm(model, at + "k_norm", k)
    q, k = rotate(q, angles), rotate(k, angles)
    k, v = (np.repeat(x, config.heads // config.key_heads, axis=1) for x in (k, v))
    behind = np.arange(len(h))[:, None] - np.arange(len(h))
    visible = (behind >= 0) & (behind < (window or math.inf))
    p = softmax(np.where(visible, np.einsum("ihd,jhd->hij", q, k) / math.sqrt(config.head_dim), -np.inf))
    return linear(model, at + "o_proj", np.einsum("hij,jhd->ihd", p, v).reshape(len(h), -1))


def rotate(v, angles):
    h = angles.shape[-1]
    x, y, c, s = v[..., :h], v[..., h : 2 * h], np.cos(angles)[:, None], np.sin(angles)[:, None]
    return np.concatenate([x * c - y * s, y * c + x * s, v[..., 2 * h :]], axis=-1)


def softmax(t):
    p = np.exp(t - t.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def gated(model, at, h):
    gate = linear(model, at + "gate_proj", h)
    return linear(model, at + "down_proj", gate / (1 + np.exp(-gate)) * linear(model, at + "up_proj", h))


def experts(model, at, h, routes):
    p = softmax(linear(model, at + "gate", h))
    ids = np.sort(np.argsort(-p, axis=-1, kind="stable")[:, : model.config.chosen], axis=-1)
    routes.append(ids)
    g = np.take_along_axis(p, ids, axis=-1)
    if model.config.renormalise:
        g = g / g.sum(axis=-1, keepdims=True)
    y = np.zeros_like(h)
    for expert in np.unique(ids):
        tokens, place = np.nonzero(ids == expert)
        y[tokens] += gated(model, f"{at}experts.{expert}.", h[tokens]) * g[tokens, place][:, None]
    return y
