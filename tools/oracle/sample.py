"""Sampling: sections 12 and 13 of docs/arithmetic.md."""

import numpy as np

from floats import F32, LOG2_E, LOG2_E_32, exp2, f32, finite, from_bits, log2, rte

LOW = np.uint64(0xFFFFFFFF)
LN_2_32 = from_bits(0x3F317218)


def philox(counter, key):
    """Philox 4×32, 10 rounds: four words for four counter words and two key words (numbers or arrays)."""
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    k0, k1 = (np.asarray(k, np.uint64) for k in key)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & LOW, (p0 >> 32) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & LOW, (k1 + np.uint64(0xBB67AE85)) & LOW
    return c0, c1, c2, c3


def uniform(ids, seed, position):
    """u[i], in (0, 1), for token ids."""
    ids = np.asarray(ids, np.uint64)
    counter = ids // np.uint64(4), position & 0xFFFFFFFF, position >> 32, 0
    words = np.stack(np.broadcast_arrays(*philox(counter, (seed & 0xFFFFFFFF, seed >> 32))))
    v = np.take_along_axis(words, (ids % np.uint64(4)).astype(np.int64)[None], axis=0)[0]
    return f32((v >> np.uint64(9)) * np.uint64(2) + np.uint64(1)) * F32(2.0**-24)


def adjusted(logits, prompt=(), answer=(), repetition=1.0, frequency=0.0, presence=0.0, bias=()):
    """A row of logits after penalties and biases; bias is pairs of token and number."""
    logits = np.array(logits, F32)
    if repetition != 1:
        r = F32(repetition)
        for i in set(prompt) | set(answer):
            logits[i] = logits[i] / r if logits[i] > 0 else logits[i] * r
    if frequency != 0 or presence != 0:
        for i in set(answer):
            logits[i] = logits[i] - F32(list(answer).count(i)) * F32(frequency)
            logits[i] = logits[i] - F32(presence)
    for i, b in bias:
        logits[i] = logits[i] + F32(b)
    return finite(logits)


def logprobs(logits):
    """The logarithm of each token's probability, before any adjusting."""
    m = logits.max()
    n = [int(i) for i in rte(exp2((logits - m) * LOG2_E_32) * F32(2.0**40))]
    o = log2(f32(np.array([sum(n)], np.uint64)) * F32(2.0**-40))[0] * LN_2_32
    return (logits - m) - o


def sample(logits, temperature, top_k=0, top_p=1.0, min_p=0.0, seed=0, position=0, mask=None):
    """The token drawn from a row of (adjusted) logits; mask lists the tokens that may be."""
    if not (temperature == 0 or temperature >= 0.001):
        raise ValueError("the temperature must be 0 or at least 0.001")
    among = np.arange(len(logits)) if mask is None else np.array(sorted(mask))
    if temperature == 0:
        return int(among[np.argmax(logits[among])])  # the first of the largest, and -0 == +0
    z = finite(logits * F32(LOG2_E / temperature))
    stay = np.sort(among[kept(z[among], top_k, top_p, min_p)])
    noise = -log2(-log2(uniform(stay, seed, position)))
    return int(stay[np.argmax(z[stay] + noise)])


def kept(z, top_k, top_p, min_p):
    """The token ids that stay, by rank."""
    rank = np.argsort(-z, kind="stable")
    if top_k > 0:
        rank = rank[:top_k]
    n = [int(i) for i in rte(exp2(z[rank] - z[rank[0]]) * F32(2**24))]
    stay = len(rank)
    if top_p < 1:
        p, total, stay, mass = round(top_p * 2.0**24), sum(n), 1, n[0]
        while 2**24 * mass < p * total:
            mass += n[stay]
            stay += 1
    if min_p > 0:
        m = round(min_p * 2.0**24)
        return np.array([i for at, i in enumerate(rank[:stay]) if n[at] >= m or at == 0])
    return rank[:stay]
