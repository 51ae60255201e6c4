#!/usr/bin/env python3
"""Compiles the CUDA kernels with NVRTC from the Python Package Index; no driver, device or toolkit is needed.

    tools/ptx.py --write   compiles crates/cuda/kernels/*.cu to crates/cuda/ptx/*.ptx
    tools/ptx.py --check   compiles again and compares, assembles what is kept for every device below as the driver does,
                           and compiles every kernel for every architecture below

The kept PTX comes from an old compiler, so that old drivers (525 and newer) take it; the machine code for all architectures
from a new one, which knows them. All versions are pinned here.
"""

import argparse
import ctypes
import os
import pathlib
import re
import subprocess
import sys
import textwrap
import venv
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "crates/cuda/kernels"
KEPT = ROOT / "crates/cuda/ptx"
OLD = ("nvidia-cuda-nvrtc-cu12", "12.0.140")  # PTX 8.0: driver 525
NEW = ("nvidia-cuda-nvrtc", "13.0.88")
ASSEMBLER = ("nvidia-cuda-nvcc", "13.0.88")
BASELINE = "compute_80"
# What the driver makes of the kept PTX on devices of these capabilities; registers and spills are told for the first.
DEVICES = ["sm_90", "sm_80", "sm_86", "sm_89", "sm_100", "sm_120"]
ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100a"]
OPTIONS = ["--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "-default-device"]


# What may not stand in the kept PTX, and why.
REFUSED = [
    (r"\.ftz\b|\.approx\b|\bdiv\.full\b", "its rounding is not the specification's"),
    (r"\.extern\s+\.func|^\s*\.func|^\s*call\b", "a driver finds no such function"),
]


def installed(package, pattern):
    """Paths in a package that match, installed under target/ if they are not there."""
    name, version = package
    folder = ROOT / "target" / f"{name}-{version}"
    found = sorted(folder.glob(f"**/{pattern}"))
    if not found:
        venv.create(folder, with_pip=True)
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", f"{name}=={version}"]
        subprocess.run(pip, check=True)
        found = sorted(folder.glob(f"**/{pattern}"))
    return found


def library(package):
    found = installed(package, "libnvrtc.so*")
    return next(path for path in found if "alt" not in path.name and "builtins" not in path.name)


def assemble(assembler, path, architecture):
    """The assembler's words about one file: a paragraph a kernel, or what is wrong."""
    command = [assembler, "--verbose", f"--gpu-name={architecture}", "--output-file=/dev/null", path]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{path.relative_to(ROOT)} for {architecture}:\n{done.stdout}{done.stderr}")
    return done.stderr


def resources(words):
    """Per kernel: its registers, and bytes of its stack and of spilled registers where there are any."""
    kernel = r"entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers"
    for name, stack, spilled, registers in sorted(re.findall(kernel, words, re.DOTALL)):
        yield f"{name} {registers}" + (f" (stack {stack}, spilled {spilled})" if stack != "0" else "")


class Compiler:
    def __init__(self, package):
        path = library(package)
        for builtins in path.parent.glob("libnvrtc-builtins.so*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self.nvrtc = ctypes.CDLL(str(path))

    def compile(self, source, architecture):
        """PTX for a compute_ architecture, machine code for an sm_ one."""
        nvrtc, program = self.nvrtc, ctypes.c_void_p()
        text = source.read_bytes()
        assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, source.name.encode(), 0, None, None) == 0
        options = [f"--gpu-architecture={architecture}", f"--include-path={KERNELS}", *OPTIONS]
        array = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        result = nvrtc.nvrtcCompileProgram(program, len(options), array)
        if result != 0:
            sys.exit(f"{source.name} for {architecture}:\n{self.read(program, 'ProgramLog')}")
        kind = "PTX" if architecture.startswith("compute") else "CUBIN"
        output = self.read(program, kind, raw=True)
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
        return output

    def read(self, program, what, raw=False):
        size = ctypes.c_size_t()
        assert getattr(self.nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        buffer = ctypes.create_string_buffer(size.value)
        assert getattr(self.nvrtc, f"nvrtcGet{what}")(program, buffer) == 0
        return buffer.raw if raw else buffer.value.decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="write the kept PTX")
    mode.add_argument("--check", action="store_true", help="compare the kept PTX, compile for every architecture")
    arguments = parser.parse_args()
    sources = sorted(KERNELS.glob("*.cu"))
    assert sources
    compiler = Compiler(OLD)
    KEPT.mkdir(exist_ok=True)
    stale = {path.name for path in KEPT.glob("*.ptx")}
    for source in sources:
        ptx = compiler.compile(source, BASELINE).rstrip(b"\0").strip() + b"\n"
        kept = KEPT / f"{source.stem}.ptx"
        stale.discard(kept.name)
        for words, why in REFUSED:
            if found := re.search(words, ptx.decode(), re.MULTILINE):
                sys.exit(f"{source.name}: {found.group().strip()} in the PTX: {why}")
        if arguments.write:
            kept.write_bytes(ptx)
        elif not kept.exists() or kept.read_bytes() != ptx:
            sys.exit(f"{kept.relative_to(ROOT)} is not what {source.name} compiles to: run tools/ptx.py --write")
    if stale:
        sys.exit(f"{KEPT.relative_to(ROOT)} holds files without a kernel: {', '.join(sorted(stale))}")
    print(f"{len(sources)} files, PTX {'written' if arguments.write else 'equal'}")
    if arguments.check:
        check(sources)


def check(sources):
    """Assembles what is kept for every device, and beside that compiles the sources for every architecture."""
    assembler = installed(ASSEMBLER, "ptxas")[0]
    kept = sorted(KEPT.glob("*.ptx"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        words = {to: [pool.submit(assemble, assembler, path, to) for path in kept] for to in DEVICES}
        compiler = Compiler(NEW)
        for architecture in ARCHITECTURES:
            for source in sources:
                compiler.compile(source, architecture)
            print(f"{architecture}: {len(sources)} files compile")
        words = {to: "".join(job.result() for job in jobs) for to, jobs in words.items()}
    print(f"the kept PTX assembles for {', '.join(DEVICES)}; registers of a thread on {DEVICES[0]}:")
    print(textwrap.fill(", ".join(resources(words[DEVICES[0]])), 120, break_on_hyphens=False))


if __name__ == "__main__":
    main()
