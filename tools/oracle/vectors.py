"""Writes vectors.json: inputs and outputs of each part of the arithmetic. See "about" at its head."""

import json
import os
import random

import numpy as np

from floats import F32, LOG2_E, NotFinite, bits, exp2, from_bits, log2, silu
from layers import (A8, A16, Adapter, Linear, attention, digits, frequencies, prepared, quantise, rmsnorm, rotary_table,
                    rotate, route, router_rows, spread, weight_rows)
from sample import adjusted, kept, logprobs, philox, sample, uniform

GAUSS = (16, 1), (24, 1e-3), (33, 50), (64, 1e4)  # lengths and scales of rows
ABOUT = [
    "Test vectors of docs/arithmetic.md, version 2; written by tools/oracle/vectors.py, one vector a line.",
    "A binary32 is the 8 hex digits of its bits; a row is such words (or decimal integers) separated by blanks; a",
    "matrix is a list of rows. 64-bit integers are 16 hex digits. T, top_p, min_p, theta and scaling are binary64, in",
    "decimal.",
    "weight_rows: x quantised by the best of 16 scales. spread: of x into y. hadamard: the same, of one head v.",
    "linear: nothing is prepared; w, A and B are quantised as weight rows, x in the mode. y is without bias and",
    "adapter, y_bias without adapter.",
    "linear_prepared: the same prepared; w and A are multiplied by norm (unless null) and spread, x is spread.",
    "route and route_prepared: likewise.",
    "attention: one head of dimension d over the keys 0..keys. Inputs come from draws of an LCG: state = seed at",
    "first, each draw is state = (1664525·state + 1013904223) mod 2^32, r = state >> 8. An integer of k and v is",
    "r mod 255 - 127, one of q is r mod 65279 - 32639; s_k and s_v are the binary32 (r + 2^24)·2^-28, s_q is",
    "(r + 2^24)·2^-36. Drawn in this order: for each key, d integers of k, s_k, d integers of v, s_v; then, for each",
    "query in the order listed, d integers of q, s_q.",
]
RANDOM = random.Random(1)


def word(x):
    return f"{int(bits(x)):08x}"


def row(x):
    x = np.asarray(x)
    return " ".join(word(i) if x.dtype == F32 else str(int(i)) for i in x)


def matrix(x):
    return [row(r) for r in x]


def normal(*shape, scale=1.0):
    """Seeded pseudo-random numbers around 0."""
    values = [RANDOM.gauss(0.0, scale) for _ in range(int(np.prod(shape)))]
    return np.array(values).astype(F32).reshape(shape)


def elementary():
    edges = ["80000000", "00000000", "80000001", "bf000000", "bf000001", "bf7fffff", "bf800000", "bfc00000", "c0200000",
             "c2fafffe", "c2fb0000", "c2fb0001", "c2fc0000", "c2fc0001", "c2fe0000", "ff7fffff", "ff800000"]
    x = np.concatenate([from_bits([int(e, 16) for e in edges]), -abs(normal(30, scale=20)), -abs(normal(15))])
    yield "exp2", [{"x": word(a), "y": word(b)} for a, b in zip(x, exp2(x))]

    edges = ["00800000", "00800001", "33800000", "3f000000", "3f3504f2", "3f3504f3", "3f3504f4", "3f7fffff", "3f800000",
             "3f800001", "3fb504f2", "3fb504f3", "3fb504f4", "40000000", "7f7fffff"]
    x = np.concatenate([from_bits([int(e, 16) for e in edges]), uniform(range(25), 5, 5),
                        from_bits([RANDOM.randrange(0x00800000, 0x7F800000) for _ in range(20)])])
    yield "log2", [{"x": word(a), "y": word(b)} for a, b in zip(x, log2(x))]

    edges = ["00000000", "80000000", "00000001", "80000001", "3f800000", "bf800000", "42aeac4f", "c2aeac4f", "c2aeac50",
             "c2aeac51", "7f7fffff", "ff7fffff", "7149f2ca", "f149f2ca"]
    x = np.concatenate([from_bits([int(e, 16) for e in edges]), normal(40, scale=4)])
    yield "silu", [{"x": word(a), "y": word(b)} for a, b in zip(x, silu(x))]


def quantisation():
    rows = [
        [127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, -127, -0.0],
        [32639, 0.5, 1.5, 127.5, 128, -128.5, -129, 383, 384, -32639],
        [0.0, -0.0, 0.0],
        [2.0**-100, -(2.0**-101), 1e-45, 0],
        [7.888609e-31, -1e-31, 1e-45, 0],
        [3.4028235e38, -1.7e38, 1.0, 1e-40],
        [-1e-30, 3e-31, 5e-32],
        [1.0],
        [1.0, float("inf")],
        [float("nan"), 1.0],
    ]
    rows = [np.array(r, F32) for r in rows] + [normal(n, scale=s) for n, s in GAUSS]
    for x in rows:
        try:
            (q8, s8), (q16, s16) = quantise(x, A8), quantise(x, A16)
        except NotFinite:
            yield {"x": row(x), "fails": True}
            continue
        hi, lo = digits(q16)
        yield {"x": row(x), "a8": {"q": row(q8), "s": word(s8)},
               "a16": {"q": row(q16), "s": word(s16), "hi": row(hi), "lo": row(lo)}}


def weights():
    rows = [
        [127, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, -127, -0.0],
        [0.0, -0.0, 0.0],
        [2.0**-100, -(2.0**-101), 1e-45, 0],
        [7.888609e-31, -1e-31, 1e-45, 0],
        [3.4028235e38, -1.7e38, 1.0, 1e-40],
        [1e-30, -3e-22, 5e-25],
        [1.0],
        [1.0, -1.0, 1.0, -1.0],
        [1.0, float("inf")],
        [float("nan"), 1.0],
    ]
    rows = [np.array(r, F32) for r in rows] + [normal(n, scale=s) for n, s in (*GAUSS, (130, 1), (300, 0.02))]
    for x in rows:
        try:
            (q,), (s,) = weight_rows(x[None])
        except NotFinite:
            yield {"x": row(x), "fails": True}
            continue
        yield {"x": row(x), "q": row(q), "s": word(s)}


def spreads():
    for n in 1, 6, 48, 96, 2048:
        x = normal(n, scale=4)
        yield {"x": row(x), "y": row(spread(x))}


def linear():
    for tokens, n, k, rank in (1, 3, 16, 2), (2, 4, 40, 3):
        x, w, b = normal(tokens, k, scale=3), normal(n, k), normal(n)
        a, up, g = normal(rank, k), normal(n, rank), F32(1 / 3)
        for name, mode in ("a8", A8), ("a16", A16):
            weight, adapter = weight_rows(w), Adapter(weight_rows(a), weight_rows(up), g)
            yield outputs(name, x, w, b, a, up, g, weight, adapter, quantise(x, mode), mode)


def linear_prepared():
    for tokens, n, k, rank, folded in (2, 3, 24, 2, True), (1, 4, 96, 3, True), (2, 3, 16, 2, False):
        x, w, b = normal(tokens, k, scale=3), normal(n, k), normal(n)
        a, up, g = normal(rank, k), normal(n, rank), F32(2 / 3)
        norm = normal(k) if folded else None
        for name, mode in ("a8", A8), ("a16", A16):
            weight = prepared(w, norm, weight_rows)
            adapter = Adapter(prepared(a, norm, weight_rows), weight_rows(up), g)
            case = outputs(name, x, w, b, a, up, g, weight, adapter, quantise(spread(x), mode), mode)
            yield {"norm": row(norm) if folded else None, **case}


def outputs(name, x, w, b, a, up, g, weight, adapter, rows, mode):
    return {"mode": name, "x": matrix(x), "w": matrix(w), "b": row(b), "A": matrix(a), "B": matrix(up), "g": word(g),
            "y": matrix(Linear(weight)(rows, mode)), "y_bias": matrix(Linear(weight, b)(rows, mode)),
            "y_adapter": matrix(Linear(weight, b, adapter)(rows, mode))}


def norms():
    for n, scale in (1, 1), (32, 1), (100, 5), (128, 1e-3), (130, 1e3), (300, 1):
        x, w, eps = normal(n, scale=scale), normal(n), F32(1e-6)
        yield {"x": row(x), "w": row(w), "eps": word(eps), "y": row(rmsnorm(x, w, eps))}


def hadamards():
    for d in 1, 2, 8, 12, 32, 48, 64, 128:
        v = normal(d, scale=4)
        yield {"v": row(v), "y": row(spread(v))}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}


def rotary():
    tables, rotated, plain = [], [], {"rope_type": "default"}
    for theta, dims, scaling in ((10000.0, 8, plain), (500000.0, 64, LLAMA3), (1e6, 6, plain),
                                 (10000.0, 20, {"rope_type": "linear", "factor": 3.0})):
        for position in 0, 1, 777, 131071:
            (c,), (s,) = rotary_table([position], frequencies(theta, dims, scaling))
            tables.append({"theta": theta, "dims": dims, "scaling": scaling, "position": position,
                           "c": row(c), "s": row(s)})
            if dims < 64:
                v = normal(dims + 2 * (dims == 6), scale=2)
                rotated.append({"v": row(v), "c": row(c), "s": row(s), "y": row(rotate(v, c, s))})
    return tables, rotated


def attentions(keys=1100, d=32, seed=1):
    state = seed

    def draw():
        nonlocal state
        state = (1664525 * state + 1013904223) % 2**32
        return state >> 8

    def integers(largest):
        return [draw() % (2 * largest + 1) - largest for _ in range(d)]

    def scale(exponent):
        return F32((draw() + 2**24) * 2.0**exponent)

    k, s_k, v, s_v = zip(*[(integers(A8), scale(-28), integers(A8), scale(-28)) for _ in range(keys)])
    k, v = (np.array(k), np.array(s_k)), (np.array(v), np.array(s_v))
    queries = []
    for position, window in ((0, None), (63, None), (64, None), (1023, None), (1024, None), (1099, None),
                             (70, 5), (1024, 1), (1050, 26), (1099, 700), (1099, 1100)):
        q = np.array([integers(A16)]), np.array([scale(-36)])
        (out,) = attention(q, k, v, np.array([position]), window)
        queries.append({"position": position, "window": window, "out": row(out)})
    return [{"keys": keys, "d": d, "seed": seed, **query} for query in queries]


def routes(folded):
    w, norm = normal(8, 24), normal(24)
    w[5] = w[2]
    for _ in range(4):
        x = normal(1, 24)
        weight = prepared(w, norm, router_rows) if folded else router_rows(w)
        for renormalise in True, False:
            ids, g = route(quantise(spread(x) if folded else x, A16), weight, 3, renormalise)
            yield {**({"norm": row(norm)} if folded else {}), "x": row(x[0]), "w": matrix(w), "chosen": 3,
                   "renormalise": renormalise, "ids": row(ids[0]), "g": row(g[0])}


def philoxes():
    pairs = [((0, 0, 0, 0), (0, 0)), ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2),
             ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))]
    pairs += [tuple(tuple(RANDOM.getrandbits(32) for _ in range(n)) for n in (4, 2)) for _ in range(5)]
    for counter, key in pairs:
        words = [" ".join(f"{int(w):08x}" for w in ws) for ws in (counter, key, philox(counter, key))]
        yield dict(zip(("counter", "key", "output"), words))


def uniforms():
    for seed, position in (0, 0), (2**64 - 1, 2**40 + 3), (RANDOM.getrandbits(64), 17):
        yield {"seed": f"{seed:016x}", "position": f"{position:016x}", "first": 0,
               "u": row(uniform(range(9), seed, position))}


def sampling():
    tied = np.array([1, -0.0, 0.0, 2, 2, -3, 2, 1, 0.0, -0.0, 1, 2], F32)
    rows = [normal(40, scale=1.5), tied, np.array([-0.0, 0.0, -1], F32), normal(1000, scale=2), np.array([-5], F32)]
    settings = [(0.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (0.7, 5, 1.0, 0.0), (1.3, 0, 0.9, 0.0), (1.0, 0, 1.0, 0.1),
                (0.8, 20, 0.95, 0.05), (1.0, 2, 0.5, 0.0), (2.5, 0, 0.999999, 0.0), (1.0, 0, 0.0, 1.0),
                (0.001, 0, 0.3, 1e-9)]
    cases = []
    for index, logits in enumerate(rows):
        for t, k, p, m in settings if len(logits) > 3 else settings[:4]:
            for _ in range(2):
                seed, position = RANDOM.getrandbits(64), RANDOM.getrandbits(RANDOM.choice([4, 12, 36]))
                stay = None if t == 0 else len(kept(logits * F32(LOG2_E / t), k, p, m))
                cases.append({"row": index, "T": t, "top_k": k, "top_p": p, "min_p": m, "seed": f"{seed:016x}",
                              "position": f"{position:016x}", "kept": stay,
                              "token": sample(logits, t, k, p, m, seed, position)})
    return [row(r) for r in rows], cases


def adjustments():
    """Penalties, biases and masks; prompt, answer and mask are token ids, bias pairs of id and binary64."""
    settings = [(1.0, 0.0, 0.0, False), (1.3, 0.0, 0.0, False), (0.7, 0.0, 0.0, True), (1.0, 0.5, 0.0, False),
                (1.0, 0.0, 1.1, False), (1.0, -2.0, -0.3, True), (1.9, 0.37, 0.1, True)]
    for repetition, frequency, presence, biased in settings:
        for t, k, p, m in (0.0, 0, 1.0, 0.0), (1.0, 0, 1.0, 0.0), (0.8, 5, 0.9, 0.02):
            for masked in False, True:
                logits = normal(50, scale=3)
                logits[7] = logits[3]
                prompt = [RANDOM.randrange(50) for _ in range(12)]
                answer = [RANDOM.randrange(20) for _ in range(RANDOM.choice([0, 30]))]
                bias = [(i, RANDOM.gauss(0, 5)) for i in sorted(RANDOM.sample(range(50), 4))] if biased else []
                mask = sorted(RANDOM.sample(range(50), RANDOM.choice([1, 3, 25]))) if masked else None
                seed, position = RANDOM.getrandbits(64), RANDOM.getrandbits(12)
                changed = adjusted(logits, prompt, answer, repetition, frequency, presence, bias)
                yield {"logits": row(logits), "prompt": prompt, "answer": answer, "repetition": repetition,
                       "frequency": frequency, "presence": presence, "bias": bias, "adjusted": row(changed),
                       "mask": mask, "T": t, "top_k": k, "top_p": p, "min_p": m, "seed": f"{seed:016x}",
                       "position": f"{position:016x}", "token": sample(changed, t, k, p, m, seed, position, mask)}


def likelihoods():
    for n, scale in (1, 1), (2, 0), (40, 1.5), (300, 5), (64, 30), (1000, 0.01):
        logits = normal(n, scale=scale)
        yield {"logits": row(logits), "logprobs": row(logprobs(logits))}


def vectors():
    tables, rotated = rotary()
    rows, cases = sampling()
    return {"about": ABOUT, "version": 2, **dict(elementary()), "quantise": list(quantisation()),
            "weight_rows": list(weights()), "spread": list(spreads()), "linear": list(linear()),
            "linear_prepared": list(linear_prepared()), "rmsnorm": list(norms()), "hadamard": list(hadamards()),
            "rotary_table": tables, "rotate": rotated, "attention": attentions(), "route": list(routes(False)),
            "route_prepared": list(routes(True)), "philox": list(philoxes()), "uniform": list(uniforms()),
            "sampling_rows": rows, "sampling": cases, "adjusted": list(adjustments()),
            "logprobs": list(likelihoods())}


def main():
    def text(value):
        if not isinstance(value, list):
            return json.dumps(value)
        return "[\n" + ",\n".join("  " + json.dumps(v, ensure_ascii=False) for v in value) + "\n]"

    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "vectors.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(f'"{name}": {text(value)}' for name, value in vectors().items()) + "\n}\n")


if __name__ == "__main__":
    main()
