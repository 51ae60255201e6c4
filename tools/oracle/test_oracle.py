"""python3 tools/oracle/test_oracle.py [GOLDENS]

GOLDENS (or the environment variable ORACLE_GOLDENS): a folder of checkpoints, each with an expected.safetensors of
float32 logits and perhaps adapters/. Without it that test is skipped.
"""

import json
import math
import os
import random
import sys
import tempfile
import unittest
from fractions import Fraction
from unittest import mock

import numpy as np

import plain
import vectors
from checkpoint import Checkpoint, norm_before, pattern, read_safetensors, write_safetensors
from floats import F32, NotFinite, bits, exp2, fma, from_bits, log2, silu
from forward import logits
from layers import A8, A16, attention, digits, quantise, prepared, rmsnorm, route, spread, weight_rows
from oracle import digest
from sample import adjusted, kept, logprobs, philox, sample, uniform

GOLDENS = os.environ.get("ORACLE_GOLDENS")
HERE = os.path.dirname(os.path.abspath(__file__))


def rounded(x):
    """A fraction rounded to binary32, ties to even, by integers alone."""
    if x == 0:
        return 0.0
    exponent = math.floor(math.log2(abs(x.numerator)) - math.log2(x.denominator))
    exponent += (abs(x) >= Fraction(2) ** (exponent + 1)) - (abs(x) < Fraction(2) ** exponent)
    unit = Fraction(2) ** max(exponent - 23, -149)
    value = round(x / unit) * unit
    return math.copysign(math.inf, x) if abs(value) >= 2**128 else float(value)


def fma_by_integers(a, b, c):
    return F32(rounded(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))))


def weight_row(x):
    """Section 1, one number after the other."""
    a, best = max(abs(x)), None
    for i in range(16):
        d = F32(127.4375 - 0.5 * i)
        r, s = d / a, a / d
        q = [round(float(min(max(v * r, F32(-127)), F32(127)))) for v in x]
        lane = [F32(0)] * 128
        for at, (v, n) in enumerate(zip(x, q)):
            error = fma_by_integers(-s, n, v)
            lane[at % 128] = fma_by_integers(error, error, lane[at % 128])
        for h in 64, 32, 16, 8, 4, 2, 1:
            for j in range(h):
                lane[j] = lane[j] + lane[j + h]
        if best is None or lane[0] < best[0]:
            best = lane[0], q, s
    return best[1:]


class Floats(unittest.TestCase):
    def check_fma(self, a, b, c):
        a, b, c = (np.asarray(x, F32) for x in (a, b, c))
        for x, y, z, ours in zip(a, b, c, fma(a, b, c)):
            self.assertEqual(ours, fma_by_integers(x, y, z), (x, y, z))

    def test_fma_is_rounded_once_for_any_finite_bit_patterns(self):
        rng = random.Random(1)
        patterns = [p for p in (rng.getrandbits(32) for _ in range(61000)) if p >> 23 & 255 != 255]
        self.check_fma(*from_bits(patterns[:60000]).reshape(3, -1))

    def test_fma_is_rounded_once_when_terms_cancel_or_meet(self):
        rng, cases = random.Random(2), []
        for _ in range(5000):
            a, b, c = (math.ldexp(rng.choice([1, -1]) * rng.randrange(2**23, 2**24), -23) for _ in "abc")
            cases.append((a, b, math.ldexp(c, rng.randrange(-50, 51))))
            cases.append((a, b, -rounded(Fraction(a) * Fraction(b))))
            b, c = math.ldexp(b, rng.randrange(-80, -50)), math.ldexp(c, rng.randrange(-149, -120))
            cases.append((math.ldexp(a, -70), b, c))
        self.check_fma(*zip(*cases))

    def test_fma_is_rounded_once_beside_halfway_cases(self):
        x, y = 2.0**-20, 2.0**-12
        below, above = (1 + x, 1 - x), (1 + y, 1 - y + y * y)  # products 1 - x² and 1 + y³: almost 1 in binary64
        rng, cases = random.Random(3), []
        for _ in range(5000):
            sign, (a, b) = rng.choice([1, -1]), rng.choice([below, above])
            integer = rng.randrange(2**23, 2**24)
            cases.append((sign * a, b, 2.0 * integer))  # half an ulp of c
            cases.append((sign * a * 2.0**-75, b * 2.0**-75, 2.0**-149 * rng.randrange(2**24)))  # of a subnormal
            odd = 1 + 2.0**-23 * (2 * rng.randrange(2**20) + 1)
            cases.append((odd, 1.5, sign * 2.0 ** -rng.randrange(40, 150)))  # the product is a tie, c tips it
        self.check_fma(*zip(*cases))

    def test_fma_keeps_infinities_and_nan(self):
        inf = F32(np.inf)
        self.assertEqual(fma(F32(1), F32(1), inf), inf)
        self.assertEqual(fma(F32(3e38), F32(10), F32(0)), inf)
        self.assertTrue(np.isnan(fma(inf, F32(1), -inf)))

    def test_exp2_log2_and_silu_are_accurate(self):
        rng = np.random.default_rng(3)
        x = -(rng.random(200000) * 126).astype(F32)
        self.assertLess(np.max(np.abs(exp2(x) / np.exp2(x.astype(float)) - 1)), 1.5e-7)
        x = from_bits(rng.integers(0x00800000, 0x7F800000, 200000))
        truth = np.log2(x.astype(float))
        self.assertLess(np.max(np.abs(log2(x) - truth) / np.maximum(np.abs(truth), 2.0**-30)), 2e-7)
        x = (rng.random(200000) * 100 - 50).astype(F32)
        truth = x / (1 + np.exp(-x.astype(float)))
        self.assertLess(np.max(np.abs(silu(x) / truth - 1)), 4e-6)  # the argument of exp2 is rounded at up to 72

    def test_exp2_of_nothing_and_of_integers_is_exact(self):
        self.assertTrue((exp2(-np.arange(127).astype(F32)) == 2.0 ** -np.arange(127)).all())
        self.assertEqual(exp2(F32(-126.00001)), 0)
        self.assertTrue(np.isnan(exp2(F32(np.nan))))


class Parts(unittest.TestCase):
    def test_a_row_returns_from_quantisation_within_half_a_step(self):
        x = np.random.default_rng(4).standard_normal((50, 77)).astype(F32)
        for mode in A8, A16:
            q, s = quantise(x, mode)
            self.assertEqual(abs(q).max(), mode)
            self.assertLess(np.max(np.abs(q * s[:, None] - x) / s[:, None]), 0.51)
        hi, lo = digits(q)
        self.assertTrue((256 * hi + lo == q).all())
        self.assertTrue(-128 <= min(hi.min(), lo.min()) and max(hi.max(), lo.max()) <= 127)

    def test_a_row_that_is_not_finite_fails(self):
        for bad in np.inf, -np.inf, np.nan:
            with self.assertRaises(NotFinite):
                quantise(np.array([1, bad], F32), A8)

    def test_a_weight_row_gets_the_best_of_16_scales(self):
        rng = np.random.default_rng(8)
        for n in 1, 5, 128, 300:
            x = (rng.standard_normal((6, n)) * 10.0 ** rng.integers(-6, 6)).astype(F32)
            for x, q, s in zip(x, *weight_rows(x)):
                self.assertEqual((list(q), s), weight_row(x))

    def test_weight_rows_have_no_infinite_error_and_tiny_ones_are_zero(self):
        q, s = weight_rows(np.array([[1e-38, -1e-31], [3e38, -2e38]], F32))
        self.assertEqual((list(q[0]), s[0]), ([0, 0], 0))
        self.assertEqual((list(q[1]), s[1]), ([127, -85], F32(3e38) / F32(127.4375)))
        with self.assertRaises(NotFinite):
            weight_rows(np.array([[1, 2], [np.nan, 1]], F32))

    def test_preparation_keeps_the_product(self):
        rng = np.random.default_rng(10)
        x, w, norm = (rng.standard_normal(shape).astype(F32) for shape in ((3, 96), (5, 96), 96))
        q, s = prepared(w, norm, lambda rows: (rows, F32(1)))
        self.assertLess(distance(spread(x) @ q.T * s, (x * norm) @ w.T), 1e-6)

    def test_spreading_twice_multiplies_by_the_block(self):
        rng = np.random.default_rng(9)
        for n, block in (1, 1), (7, 1), (12, 4), (96, 32), (1024, 1024), (2048, 1024), (3072, 1024):
            x = rng.integers(-9, 10, (2, n)).astype(F32)
            signs = np.ones((1, 1))
            while len(signs) < block:
                signs = np.kron([[1, 1], [1, -1]], signs)
            truth = (x.reshape(2, -1, block) @ signs).reshape(2, n)
            self.assertTrue((spread(x) == truth).all() and (spread(spread(x)) == block * x).all())

    def test_a_norm_of_an_infinite_sum_is_zero(self):
        self.assertTrue((rmsnorm(np.array([[1e30, 1]], F32), np.ones(2, F32), F32(1e-6)) == 0).all())

    def test_attention_is_close_to_softmax(self):
        rng, d, keys = np.random.default_rng(5), 32, 1100
        q, k, v = (rng.integers(-127, 128, (keys, d)) for _ in "qkv")
        s = np.full(keys, 0.1, F32)
        for position, window in (5, None), (1099, None), (1099, 300):
            seen = slice(max(0, position + 1 - window) if window else 0, position + 1)
            t = k[seen] @ q[0] * 0.01 / (math.sqrt(d) * 32)
            p = np.exp(t - t.max())
            truth = p / p.sum() @ v[seen] * 0.1
            (ours,) = attention((q[:1], s[:1]), (k, s), (v, s), np.array([position]), window)
            self.assertLess(np.linalg.norm(ours - truth) / np.linalg.norm(truth), 1e-4)

    def test_philox_gives_the_known_answers(self):
        words = philox((0, 0, 0, 0), (0, 0))
        self.assertEqual([int(w) for w in words], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8])
        words = philox((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0))
        self.assertEqual([int(w) for w in words], [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1])

    def test_uniforms_lie_inside_0_and_1(self):
        u = uniform(range(100000), 7, 3)
        self.assertTrue((0 < u).all() and (u < 1).all())
        self.assertAlmostEqual(u.mean(), 0.5, places=2)
        self.assertTrue(np.isfinite(log2(-log2(from_bits([0x33800000, 0x3F7FFFFF])))).all())  # the ends of the range

    def test_adjusting_changes_the_tokens_it_names(self):
        row = np.array([2, -2, 1, 0.5], F32)
        got = adjusted(row, prompt=[0], answer=[1, 1, 2], repetition=2, frequency=0.5, presence=0.25, bias=[(3, 4.0)])
        self.assertEqual(got.tolist(), [1, -4 - 1 - 0.25, 0.5 - 0.5 - 0.25, 4.5])
        self.assertEqual(adjusted(row).tolist(), row.tolist())

    def test_masks_leave_tokens_out(self):
        row = np.array([5, 1, 3, 2], F32)
        self.assertEqual(sample(row, 0, mask=[1, 3]), 3)
        self.assertEqual({sample(row, 1.0, position=p, mask=[1, 3]) for p in range(100)}, {1, 3})
        self.assertEqual({sample(row, 1.0, top_k=1, position=p, mask=[1, 3]) for p in range(100)}, {3})

    def test_logprobs_are_those_of_softmax(self):
        for scale in 0, 1, 20:
            row = (np.random.default_rng(3).normal(size=500) * scale).astype(F32)
            exact = row - np.log(np.exp(row.astype(np.float64) - row.max()).sum()) - row.max()
            self.assertLess(np.abs(logprobs(row) - exact).max(), 1e-5)

    def test_samples_follow_the_softmax(self):
        row, draws = np.array([0.5, -1, 2, 1.2, -0.3], F32), 4000
        truth = np.exp(row / 1.5) / np.exp(row / 1.5).sum()
        counts = np.bincount([sample(row, 1.5, seed=9, position=p) for p in range(draws)], minlength=5)
        self.assertLess(np.max(np.abs(counts - draws * truth) / np.sqrt(draws * truth)), 4)

    def test_filters_keep_the_head_of_the_rank_and_ties_go_to_the_lower_id(self):
        z = np.array([1, 3, -0.0, 0, 3, 2], F32)
        self.assertEqual(list(kept(z, 0, 1.0, 0.0)), [1, 4, 5, 0, 2, 3])
        self.assertEqual(list(kept(z, 3, 1.0, 0.0)), [1, 4, 5])
        self.assertEqual(list(kept(z, 0, 0.0, 0.0)), [1])
        self.assertEqual(list(kept(z, 0, 1.0, 0.5)), [1, 4, 5])
        self.assertEqual(sample(z, 0), 1)

    def test_a_temperature_is_0_or_at_least_a_thousandth(self):
        self.assertEqual(sample(np.array([0, 1], F32), 0.001), 1)
        for bad in 0.0009, -1, math.nan:
            with self.assertRaises(ValueError):
                sample(np.array([0, 1], F32), bad)

    def test_patterns_match_whole_module_names(self):
        patterns = {"1.self_attn.q_proj": 4, "q_proj": 8}
        self.assertEqual(pattern(patterns, "model.layers.1.self_attn.q_proj", 2), 4)
        self.assertEqual(pattern(patterns, "model.layers.11.self_attn.q_proj", 2), 8)
        self.assertEqual(pattern(patterns, "model.layers.1.self_attn.iq_proj", 2), 2)

    def test_maps_know_the_norm_they_read(self):
        layer = "model.layers.3."
        for path, norm in (("lm_head", "model.norm"), (layer + "self_attn.v_proj", layer + "input_layernorm"),
                           (layer + "mlp.gate", layer + "post_attention_layernorm"), (layer + "mlp.down_proj", None),
                           (layer + "mlp.experts.7.up_proj", layer + "post_attention_layernorm"),
                           (layer + "self_attn.o_proj", None), (layer + "mlp.experts.7.down_proj", None)):
            self.assertEqual(norm_before(path), norm)

    def test_the_written_vectors_are_the_current_ones(self):
        vectors.RANDOM.seed(1)
        with open(os.path.join(HERE, "vectors.json"), encoding="utf-8") as file:
            self.assertEqual(json.load(file), json.loads(json.dumps(vectors.vectors())))


def tiny_model(folder, int8=None):
    """A checkpoint of two layers; if `int8` says "rows" or "one scale", its linear maps but the head as integers."""
    rng, hidden, inner, d, vocabulary = np.random.default_rng(6), 32, 48, 12, 50
    shapes = {"q": (4 * d, hidden), "k": (2 * d, hidden), "v": (2 * d, hidden), "o": (hidden, 4 * d)}
    shapes = {f"self_attn.{name}_proj": shape for name, shape in shapes.items()}
    shapes |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    maps, norms = {"lm_head": (vocabulary, hidden)}, ["model.norm"]
    for n in range(2):
        at = f"model.layers.{n}."
        maps |= {at + name: shape for name, shape in shapes.items()}
        norms += [at + "input_layernorm", at + "post_attention_layernorm"]
    tensors = {norm + ".weight": (2 * rng.random(hidden)).astype(F32) for norm in norms}
    tensors["model.embed_tokens.weight"] = rng.standard_normal((vocabulary, hidden)).astype(np.float16)
    for path, shape in maps.items():
        weight = (0.3 * rng.standard_normal(shape)).astype(F32)
        tensors[path + ".weight"] = weight
        if int8 and path != "lm_head":
            one = F32(0.01)
            q, s = weight_rows(weight) if int8 == "rows" else (np.clip(np.rint(weight / one), -128, 127), one)
            tensors |= {path + ".weight": q.astype(np.int8), path + ".weight_scale": s.reshape(-1, 1)}
    write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
    config = {"model_type": "mistral", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
              "head_dim": d, "hidden_size": hidden, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 70}
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    return Checkpoint(folder)


def distance(ours, truth):
    return np.linalg.norm(ours - truth) / np.linalg.norm(truth)


class Models(unittest.TestCase):
    def test_the_future_cannot_change_the_past(self):
        ids = np.random.default_rng(7).integers(0, 50, 150)
        with tempfile.TemporaryDirectory() as folder:
            model = tiny_model(folder)
            for mode in A8, A16:
                whole = logits(model, ids, mode)
                for tokens in 1, 63, 64, 65, 149:
                    self.assertTrue((bits(logits(model, ids[:tokens], mode)) == bits(whole[:tokens])).all())

    def test_a_prepared_model_computes_the_same_function(self):
        ids = np.random.default_rng(7).integers(0, 50, 150)
        with tempfile.TemporaryDirectory() as folder:
            model = tiny_model(folder)
            for mode, bound in (A8, 0.06), (A16, 0.05):
                self.assertLess(distance(logits(model, ids, mode), plain.logits(model, ids)[0]), bound)

    def test_an_int8_checkpoint_is_not_prepared(self):
        ids = [3, 1, 4, 1, 5]
        with tempfile.TemporaryDirectory() as folder:
            rows = logits(tiny_model(folder, "rows"), ids, A8)
            one = logits(tiny_model(folder, "one scale"), ids, A16)
            model = tiny_model(folder)
            self.assertLess(distance(one, plain.logits(model, ids)[0]), 0.1)
            model.prepared = False
            self.assertTrue((bits(rows) == bits(logits(model, ids, A8))).all())

    def test_logits_are_close_to_those_of_float32(self):
        """Of each sequence, but in a model with experts only over the tokens that choose the same ones everywhere."""
        if not GOLDENS:
            self.skipTest("no folder of goldens is given")
        for name in sorted(os.listdir(GOLDENS)):
            folder = os.path.join(GOLDENS, name)
            if not os.path.exists(os.path.join(folder, "expected.safetensors")):
                continue
            expected = read_safetensors(os.path.join(folder, "expected.safetensors"))
            for which in sorted({key.split(".")[0] for key in expected} - {"ids"}):
                model = Checkpoint(folder, None if which == "base" else os.path.join(folder, "adapters", which))
                sequences = [(expected[f"ids.{i}"], expected[f"{which}.{i}"]) for i in range(5)]
                chosen = [self.check_plain(model, *sequence) for sequence in sequences]
                for mode, dense in (A8, 0.045), (A16, 0.03):
                    errors, same = [], []
                    for (ids, truth), routes in zip(sequences, chosen):
                        ours, our_routes = logits_and_routes(model, ids, mode)
                        equal = np.ones(len(ids), bool)
                        for a, b in zip(our_routes, routes):
                            equal &= (a == b).all(axis=-1)
                        same.append(equal)
                        if equal.any():
                            errors.append(distance(ours[equal], truth[equal]))
                    same = np.concatenate(same).mean()
                    print(f"{name} {which} {'a8' if mode == A8 else 'a16'}: median {np.median(errors):.2%}, "
                          f"largest {max(errors):.2%}, ids.4 {digest(ours)[:12]}"
                          + (f", equal routes {same:.1%}" if routes else ""))
                    self.assertLess(max(errors), 0.05 if routes else dense)
                    self.assertGreater(same, 0.95)

    def check_plain(self, model, ids, truth):
        ours, routes = plain.logits(model, ids)
        self.assertLess(distance(ours, truth), 1e-5)
        return routes


def logits_and_routes(model, ids, mode):
    """With the chosen experts of each layer that has them."""
    routes = []

    def recorded(*arguments):
        routes.append(route(*arguments)[0])
        return route(*arguments)

    with mock.patch("forward.route", recorded):
        return logits(model, ids, mode), routes


if __name__ == "__main__":
    if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]):
        GOLDENS = sys.argv.pop(1)
    unittest.main()
