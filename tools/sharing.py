#!/usr/bin/env python3
"""What sharing a device pays: the same traffic against one server with many adapters, and against a server for each.

    sharing.py LOCKSTEP ADAPTERS [RATE] [SECONDS]

Adapters are the demo's, and copies of them with weights scaled a little. Separate servers are started for real up to
SEPARATE_MAX; beyond that one is measured and multiplied, and the output says so. Needs nothing but the standard library.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

DEMO = Path(__file__).resolve().parent.parent / "models" / "demo" / "adapters"
SEPARATE_MAX = 8
PORT = 18400


def scaled(source: Path, target: Path, number: int) -> None:
    """A copy of an adapter whose first tensor's first value is another: another adapter, as large and as fast."""
    shutil.copytree(source, target)
    weights = target / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    header = struct.unpack("<Q", data[:8])[0]
    data[8 + header] = (data[8 + header] + number) % 256
    weights.write_bytes(data)


def start(lockstep: str, folder: Path, port: int, adapters: list[Path], data: Path) -> subprocess.Popen:
    arguments = [lockstep, "up", "--listen", f"127.0.0.1:{port}", "--data", str(data), "--survives", "process"]
    arguments += ["--model", str(DEMO.parent / "base"), "--name", "base", "--memory", "0.5"]
    if len(adapters) == 1:
        arguments += ["--adapter", f"{adapters[0].name}={adapters[0]}"]
    else:
        arguments += ["--adapters-in", str(folder)]
    log = open(data.with_suffix(".log"), "w")
    server = subprocess.Popen(arguments, stdout=log, stderr=log)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
            return server
        except OSError:
            time.sleep(0.1)
        if server.poll() is not None:
            break
    sys.exit(f"a server did not start: {data.with_suffix('.log').read_text()}")


def resident(server: subprocess.Popen) -> float:
    """Megabytes of memory that are the process's own."""
    text = Path(f"/proc/{server.pid}/smaps_rollup").read_text()
    kilobytes = [int(line.split()[1]) for line in text.splitlines() if line.startswith("Private")]
    return sum(kilobytes) / 1e3


def load(lockstep: str, names: list[str], rate: str, seconds: str, routes: list[str]) -> dict:
    arguments = [lockstep, "load", "--url", f"http://127.0.0.1:{PORT}/v1", "--models", ",".join(names), "--json"]
    arguments += ["--rate", rate, "--duration", seconds, "--prompt-tokens", "40", "--output-tokens", "20"]
    arguments += ["--ignore-eos", "--target", "1000,100", "--costs", "rtx-4090"]
    for route in routes:
        arguments += ["--route", route]
    return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def tell(what: str, result: dict, megabytes: float, devices: int) -> float:
    first, between = result["first_ms"], result["between_ms"]
    earned = result["good_tokens"] / devices / result["seconds"] * 3600
    print(
        f"{what:34} {megabytes:9.1f} MB  first token p50 {first['p50']:7.1f} p99 {first['p99']:7.1f} ms, between p99 "
        f"{between['p99']:6.1f} ms, good {result['good_answers']} of {result['requests']}, "
        f"{earned / 1e6:.3f} M good tokens for a device-hour",
        flush=True,
    )
    return earned


def main() -> None:
    lockstep, count = sys.argv[1], int(sys.argv[2])
    rate = sys.argv[3] if len(sys.argv) > 3 else "20"
    seconds = sys.argv[4] if len(sys.argv) > 4 else "20"
    originals = sorted(path for path in DEMO.iterdir() if path.is_dir())
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "adapters"
        folder.mkdir()
        names = [f"adapter-{number:03}" for number in range(count)]
        for number, name in enumerate(names):
            scaled(originals[number % len(originals)], folder / name, number // len(originals))
        paths = [folder / name for name in names]
        shared = start(lockstep, folder, PORT, paths, Path(temporary) / "shared")
        load(lockstep, names, rate, "3", [])
        together = load(lockstep, names, rate, seconds, [])
        together_earned = tell(f"{count} adapters, one server", together, resident(shared), 1)
        shared_megabytes = resident(shared)
        shared.terminate()
        shared.wait()

        started = min(count, SEPARATE_MAX)
        servers, routes = [], []
        for number in range(started):
            port = PORT + 1 + number
            servers.append(start(lockstep, folder, port, [paths[number]], Path(temporary) / f"own-{number}"))
            routes.append(f"{names[number]}=http://127.0.0.1:{port}/v1")
        # All separate servers compute on this one machine, which flatters none: their traffic is the same in sum.
        asked = names[:started]
        own_rate = rate if started == count else str(float(rate) * started / count)
        load(lockstep, asked, own_rate, "3", routes)
        apart = load(lockstep, asked, own_rate, seconds, routes)
        megabytes = sum(resident(server) for server in servers) * count / started
        note = "" if started == count else f", {started} started, memory times {count / started:.0f}"
        if started < count:
            # So few see too little of the traffic to count it: all of it, of which the same part is good.
            offered = together["good_tokens"] / together["good_answers"] * together["requests"]
            apart = dict(apart, good_tokens=offered * apart["good_answers"] / apart["requests"], seconds=together["seconds"])
        apart_earned = tell(f"{count} servers{note}", apart, megabytes, count)
        for server in servers:
            server.terminate()
        for server in servers:
            server.wait()
        print(f"memory {megabytes / shared_megabytes:.1f} times less; a device-hour earns "
              f"{together_earned / apart_earned:.1f} times as much if each server has a device of its own")


if __name__ == "__main__":
    main()
