"""One layer, and the whole: sections 5 and 11 of docs/arithmetic.md."""

import numpy as np

from floats import finite, fma, silu
from layers import A8, A16, attention, frequencies, hadamard, quantise, rmsnorm, rotary_table, rotate, route


def logits(model, ids, mode):
    """[tokens, vocabulary] for the token ids of one sequence, in activation mode A8 or A16."""
    config = model.config
    table = rotary_table(range(len(ids)), frequencies(config.theta, config.rotary_dims, config.scaling))
    x = model.embedding()[ids]
    for n in range(config.layers):
        at = f"model.layers.{n}."
        h = rmsnorm(x, model.vector(at + "input_layernorm.weight"), config.eps)
        x = x + attend(model, n, at + "self_attn.", h, table, mode)
        h = rmsnorm(x, model.vector(at + "post_attention_layernorm.weight"), config.eps)
        x = x + (experts if config.experts[n] else mlp)(model, at + "mlp.", h, mode)
    h = rmsnorm(x, model.vector("model.norm.weight"), config.eps)
    return finite(model.linear("lm_head")(quantise(h, mode), mode))


def attend(model, n, at, h, table, mode):
    config = model.config
    h = quantise(h, mode)
    q, k, v = (heads(model.linear(at + name)(h, mode), config.head_dim) for name in ("q_proj", "k_proj", "v_proj"))
    if config.head_norms:
        q = rmsnorm(q, model.vector(at + "q_norm.weight"), config.eps)
        k = rmsnorm(k, model.vector(at + "k_norm.weight"), config.eps)
    q, k = hadamard(rotate(q, *table)), hadamard(rotate(k, *table))
    q, k, v = ([quantise(head, A8) for head in x] for x in (q, k, v))
    positions, shared = np.arange(len(h[0])), config.heads // config.key_heads
    out = [attention(q[i], k[i // shared], v[i // shared], positions, config.windows[n]) for i in range(config.heads)]
    return model.linear(at + "o_proj")(quantise(np.concatenate(out, axis=-1), mode), mode)


def heads(x, d):
    """[tokens, heads·d] as [heads, tokens, d]."""
    return x.reshape(len(x), -1, d).swapaxes(0, 1)


def mlp(model, at, h, mode):
    return gated(model, at, quantise(h, mode), mode)


def gated(model, at, h, mode):
    """§9 the gated MLP of quantised rows."""
    up = silu(model.linear(at + "gate_proj")(h, mode)) * model.linear(at + "up_proj")(h, mode)
    return model.linear(at + "down_proj")(quantise(up, mode), mode)


def experts(model, at, h, mode):
    """§10 each expert runs on the tokens that chose it, in ascending id, so every token adds in ascending id."""
    ids, g = route(quantise(h, A16), model.router(at + "gate"), model.config.chosen, model.config.renormalise)
    q, s = quantise(h, mode)
    y, started = np.zeros_like(h), np.zeros(len(h), bool)
    for expert in np.unique(ids):
        tokens, place = np.nonzero(ids == expert)
        d = gated(model, f"{at}experts.{expert}.", (q[tokens], s[tokens]), mode)
        weight = g[tokens, place][:, None]
        y[tokens] = np.where(started[tokens, None], fma(d, weight, y[tokens]), d * weight)
        started[tokens] = True
    return y
