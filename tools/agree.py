"""The program and the oracle, written apart from one specification, give the same bits for whole models.

    python3 tools/agree.py target/release/lockstep

Compares digests of all logits on the demo: base and every adapter, both activation modes, every instruction set.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tools", "oracle"))
import checkpoint  # noqa: E402
import forward  # noqa: E402
from layers import A8, A16  # noqa: E402

TOKENS = 70  # more than a page


def main(program):
    demo = os.path.join(ROOT, "models", "demo")
    with open(os.path.join(demo, "examples", "text.ids.txt")) as file:
        ids = [int(word) for word in file.readline().split()][:TOKENS]
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "ids.txt")
        with open(path, "w") as file:
            file.write(" ".join(map(str, ids)))
        for adapter in [None, "triage", "extract", "sql", "reply", "spanish"]:
            adapter_folder = adapter and os.path.join(demo, "adapters", adapter)
            model = checkpoint.Checkpoint(os.path.join(demo, "base"), adapter_folder)
            for name, mode in [("a8", A8), ("a16", A16)]:
                want = hashlib.sha256(forward.logits(model, ids, mode).astype("<f4").tobytes()).hexdigest()
                for isa in ["scalar", "avx2", "avx512", "amx"]:
                    command = [program, "score", "--json", "--token-ids", path, "--activations", name, "--isa", isa]
                    command += ["--data", folder]
                    command += ["--adapter", adapter] if adapter else []
                    run = subprocess.run(command, capture_output=True, text=True)
                    if run.returncode and "this machine has no" in run.stderr:
                        continue
                    if run.returncode:
                        sys.exit(run.stderr)
                    equal = json.loads(run.stdout)["logits_sha256"] == want
                    differing += not equal
                    print(f"{adapter or 'base':8} {name:4} {isa:7} {'equal' if equal else 'DIFFERS'}")
    sys.exit(f"{differing} runs differ" if differing else 0)


if __name__ == "__main__":
    main(sys.argv[1])
