"""One layer, and the whole: sections 5, 7 and 11 of docs/arithmetic.md."""

import numpy as np

from floats import finite, fma, silu
from layers import A8, A16, attention, frequencies, quantise, rmsnorm, rotary_table, rotate, route, spread


def logits(model, ids, mode):
    """[tokens, vocabulary] for the token ids of one sequence, in activation mode A8 or A16."""
    config = model.config
    table = rotary_table(range(len(ids)), frequencies(config.theta, config.head_dim, config.scaling))
    x = model.embedding()[ids]
    for n in range(config.layers):
        at = f"model.layers.{n}."
        h = spread_rows(model, norm(model, at + "input_layernorm", x))
        x = x + attend(model, n, at + "self_attn.", h, table, mode)
        h = spread_rows(model, norm(model, at + "post_attention_layernorm", x))
        x = x + (experts if config.experts[n] else gated)(model, at + "mlp.", h, mode)
    h = spread_rows(model, norm(model, "model.norm", x))
    return finite(model.linear("lm_head")(quantise(h, mode), mode))


def norm(model, name, x):
    return rmsnorm(x, model.norm(name), model.config.eps)


def spread_rows(model, x):
    """What is quantised for a linear map."""
    return spread(x) if model.prepared else x


def attend(model, n, at, h, table, mode):
    config = model.config
    h = quantise(h, mode)
    q, k, v = (heads(model.linear(at + name)(h, mode), config.head_dim) for name in ("q_proj", "k_proj", "v_proj"))
    if config.head_norms:
        q = rmsnorm(q, model.vector(at + "q_norm.weight"), config.eps)
        k = rmsnorm(k, model.vector(at + "k_norm.weight"), config.eps)
    q, k = spread(rotate(q, *table)), spread(rotate(k, *table))
    (q, s_q), (k, s_k), (v, s_v) = quantise(q, A16), quantise(k, A8), quantise(v, A8)
    positions, shared, out = np.arange(len(h[0])), config.heads // config.key_heads, []
    for i in range(config.heads):
        j = i // shared
        out.append(attention((q[i], s_q[i]), (k[j], s_k[j]), (v[j], s_v[j]), positions, config.windows[n]))
    out = quantise(spread_rows(model, np.concatenate(out, axis=-1)), mode)
    return model.linear(at + "o_proj")(out, mode)


def heads(x, d):
    """[tokens, heads·d] as [heads, tokens, d]."""
    return x.reshape(len(x), -1, d).swapaxes(0, 1)


def gated(model, at, h, mode):
    """§9 the gated MLP."""
    h = quantise(h, mode)
    inner = silu(model.linear(at + "gate_proj")(h, mode)) * model.linear(at + "up_proj")(h, mode)
    return model.linear(at + "down_proj")(quantise(spread_rows(model, inner), mode), mode)


def experts(model, at, h, mode):
    """§10 each expert runs on the tokens that chose it, in ascending id, so every token adds in ascending id."""
    ids, g = route(quantise(h, A16), model.router(at + "gate"), model.config.chosen, model.config.renormalise)
    y, started = np.zeros_like(h), np.zeros(len(h), bool)
    for expert in np.unique(ids):
        tokens, place = np.nonzero(ids == expert)
        d = gated(model, f"{at}experts.{expert}.", h[tokens], mode)
        weight = g[tokens, place][:, None]
        y[tokens] = np.where(started[tokens, None], fma(d, weight, y[tokens]), d * weight)
        started[tokens] = True
    return y
