"""The command: logits of a sequence, or a token drawn from a row of them. See README.md."""

import argparse
import hashlib

import numpy as np

from checkpoint import Checkpoint, read_safetensors, write_safetensors
from forward import logits
from layers import A8, A16
from sample import sample


def mean_negative_log_likelihood(rows, ids):
    """Of the tokens after the first, natural logarithm, in binary64."""
    rows = rows[:-1].astype(np.float64)
    top = rows.max(axis=-1)
    total = top + np.log(np.exp(rows - top[:, None]).sum(axis=-1))
    return float((total - rows[np.arange(len(rows)), ids[1:]]).mean()) if len(rows) else float("nan")


def digest(rows):
    return hashlib.sha256(rows.astype("<f4").tobytes()).hexdigest()


def run(options):
    with open(options.token_ids, encoding="utf-8") as file:
        text = file.read()
    lines = [line for line in text.splitlines() if line.strip()]
    sequences = lines if options.lines else [text if options.line is None else lines[options.line]]
    model, losses, written = Checkpoint(options.model, options.adapter), [], {}
    for n, sequence in enumerate(sequences):
        ids = [int(i) for i in sequence.split()]
        rows = logits(model, ids, {"a8": A8, "a16": A16}[options.activations])
        written[f"logits.{n}" if options.lines else "logits"] = rows
        losses.append(mean_negative_log_likelihood(rows, ids))
        print(f"tokens {len(ids)}")
        print(f"mean negative log-likelihood {losses[-1]:.6f}")
        print(f"sha256 {digest(rows)}")
    if options.lines:
        print(f"mean of the lines {np.mean(losses):.6f}")
    if options.logits:
        write_safetensors(options.logits, written)


def draw(options):
    rows = read_safetensors(options.logits)["logits"]
    row = options.row % len(rows)
    position = row + 1 if options.position is None else options.position
    print(sample(rows[row], options.temperature, options.top_k, options.top_p, options.min_p, options.seed, position))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logits", help="the safetensors file of logits: written, or read by --sample")
    forward = parser.add_argument_group("logits")
    forward.add_argument("--model", help="Hugging Face folder")
    forward.add_argument("--adapter", help="PEFT folder")
    forward.add_argument("--token-ids", help="file of token ids, separated by white space")
    forward.add_argument("--line", type=int, help="take this line of the file alone, counted from 0, empty ones not")
    forward.add_argument("--lines", action="store_true", help="take every line as a sequence of its own")
    forward.add_argument("--activations", choices=["a8", "a16"], default="a8")
    drawing = parser.add_argument_group("a token")
    drawing.add_argument("--sample", action="store_true", help="draw a token from a row of --logits")
    drawing.add_argument("--row", type=int, default=-1)
    drawing.add_argument("--temperature", type=float, default=0.0)
    drawing.add_argument("--top-k", type=int, default=0)
    drawing.add_argument("--top-p", type=float, default=1.0)
    drawing.add_argument("--min-p", type=float, default=0.0)
    drawing.add_argument("--seed", type=int, default=0)
    drawing.add_argument("--position", type=int, help="tokens before the one drawn; by default row + 1")
    options = parser.parse_args()
    needed = options.logits if options.sample else options.model and options.token_ids
    if not needed:
        parser.error("--sample needs --logits; otherwise --model and --token-ids")
    (draw if options.sample else run)(options)


if __name__ == "__main__":
    main()
