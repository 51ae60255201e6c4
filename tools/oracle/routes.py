"""Writes routes.json beside the expected logits of a mixture of experts: which experts each token takes in float32.

    routes.py CHECKPOINT

By "base" or the adapter's name and the sequence's number: a list of layers, of tokens, of experts' ids, ascending.
"""

import json
import os
import sys

import plain
from checkpoint import Checkpoint, read_safetensors


def main(folder):
    expected = read_safetensors(os.path.join(folder, "expected.safetensors"))
    found = {}
    for key in sorted(expected):
        which, _, number = key.rpartition(".")
        if which == "ids":
            continue
        model = Checkpoint(folder, None if which == "base" else os.path.join(folder, "adapters", which))
        routes = plain.logits(model, expected[f"ids.{number}"])[1]
        found[key] = [ids.tolist() for ids in routes]
    with open(os.path.join(folder, "routes.json"), "w") as file:
        json.dump(found, file, separators=(",", ":"))
        file.write("\n")


main(sys.argv[1])
