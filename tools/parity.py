#!/usr/bin/env python3
"""Small random checkpoints and adapters of many kinds, saved by transformers and PEFT, against what those compute.

    pip install torch transformers peft
    python tools/parity.py target/release/lockstep [NAME …]

Each checkpoint exercises something a config.json may say: biases, odd sizes, head dimensions, rotary scalings in the new
and the old keys, windows, tied heads, files in parts, types of weights, mixtures, and adapters of every rank, pattern and
subset of the maps. Printed is the relative L2 distance of logits, the worst of sequences of 1, 7, 65 and 200 tokens, with
8-bit and 16-bit inputs. Weights are Gaussian, the worst case for rounding; deep or tied ones amplify it. A wrong reading
of a setting is a distance of tens of percent. Mixtures are told by their median token, since a token that takes other
experts is another token. Ends with 1 if anything could not be run, or is further off than --limit percent.
"""
import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import warnings

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config,
                          Qwen3MoeConfig)

LENGTHS = (1, 7, 65, 200)
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MAPS = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
SIZES = dict(vocab_size=512, hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=1024)
EXPERTS = dict(moe_intermediate_size=96, num_experts=8, num_experts_per_tok=2, norm_topk_prob=True, head_dim=32)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64, rope_theta=500_000.0)
LINEAR = dict(rope_type="linear", factor=2.5, rope_theta=50_000.0)


class Case:
    def __init__(self, family, adapters=None, dtype=torch.bfloat16, shards=None, old=False, **settings):
        self.family, self.settings = family, {**SIZES, **settings}
        self.adapters, self.dtype, self.shards, self.old = adapters or {}, dtype, shards, old

    def sparse(self):
        return self.family is Qwen3MoeConfig


def lora(**settings):
    return dict(r=8, lora_alpha=16, target_modules=MAPS, task_type="CAUSAL_LM") | settings


ALL = {"all": lora()}
CASES = {
    "bias": Case(LlamaConfig, ALL, attention_bias=True, mlp_bias=True),
    "odd": Case(LlamaConfig, {"r3": lora(r=3), "r33": lora(r=33)}, hidden_size=96, num_attention_heads=6,
                num_key_value_heads=3, intermediate_size=200, vocab_size=131),
    "odder": Case(LlamaConfig, {"r5": lora(r=5)}, hidden_size=100, num_attention_heads=5, num_key_value_heads=1,
                  head_dim=12, intermediate_size=77, vocab_size=99),
    "head-64": Case(LlamaConfig, ALL, head_dim=64, num_attention_heads=2),
    "head-80": Case(LlamaConfig, head_dim=80, hidden_size=320),
    "head-96": Case(LlamaConfig, head_dim=96, hidden_size=384),
    "head-128": Case(LlamaConfig, head_dim=128, hidden_size=256, num_key_value_heads=4),
    "linear": Case(LlamaConfig, rope_parameters=LINEAR),
    "linear-old": Case(LlamaConfig, rope_parameters=LINEAR, old=True),
    "llama3": Case(LlamaConfig, rope_parameters=LLAMA3),
    "llama3-old": Case(LlamaConfig, rope_parameters=LLAMA3, old=True),
    "float16": Case(LlamaConfig, ALL, dtype=torch.float16),
    "float32": Case(LlamaConfig, ALL, dtype=torch.float32),
    "tied-parts": Case(LlamaConfig, {"all": lora(), "head": lora(target_modules=["q_proj", "lm_head"])},
                       tie_word_embeddings=True, shards="200KB"),
    "epsilon": Case(LlamaConfig, rms_norm_eps=1e-2),
    "one-layer": Case(LlamaConfig, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1),
    "eight-layers": Case(LlamaConfig, num_hidden_layers=8),
    "wide": Case(LlamaConfig, hidden_size=512, intermediate_size=1408, num_attention_heads=8),
    "adapters": Case(LlamaConfig, {
        "r1": lora(r=1), "r64": lora(r=64), "r128": lora(r=128),
        "head": lora(target_modules=["q_proj", "lm_head"]), "every-linear": lora(target_modules="all-linear"),
        "patterns": lora(rank_pattern={"q_proj": 4, "layers.1.mlp.down_proj": 16, r".*\.0\.self_attn\.v_proj": 2},
                         alpha_pattern={"q_proj": 32, "o_proj": 3}),
        "root": lora(use_rslora=True, rank_pattern={"v_proj": 3}, alpha_pattern={"layers.2.self_attn.k_proj": 5}),
        "layers": lora(layers_to_transform=[0, 2]), "but-q": lora(exclude_modules=["q_proj"]),
        "expression": lora(target_modules=r".*\.[01]\..*_proj"), "negative": lora(lora_alpha=-8)}),
    "mistral-window": Case(MistralConfig, ALL, sliding_window=32),
    "mistral-window-1": Case(MistralConfig, sliding_window=1),
    "mistral-old": Case(MistralConfig, sliding_window=4096, old=True),
    "mistral-none": Case(MistralConfig, sliding_window=None, head_dim=16),
    "qwen2-old": Case(Qwen2Config, ALL, tie_word_embeddings=True, old=True),
    "qwen2": Case(Qwen2Config, {"root": lora(use_rslora=True)}),
    "qwen2-window": Case(Qwen2Config, use_sliding_window=True, sliding_window=48, max_window_layers=0),
    "qwen2-window-off": Case(Qwen2Config, use_sliding_window=False, sliding_window=48, max_window_layers=1),
    "qwen3-bias": Case(Qwen3Config, ALL, attention_bias=True, head_dim=32),
    "qwen3-tied-old": Case(Qwen3Config, ALL, tie_word_embeddings=True, head_dim=128, old=True),
    "qwen3-window": Case(Qwen3Config, head_dim=32, use_sliding_window=True, sliding_window=40, max_window_layers=0),
    "experts": Case(Qwen3MoeConfig, {"attention": lora(target_modules=ATTENTION)}, **EXPERTS),
    "experts-raw": Case(Qwen3MoeConfig, **{**EXPERTS, "norm_topk_prob": False, "num_experts_per_tok": 3}),
    "experts-half": Case(Qwen3MoeConfig, decoder_sparse_step=2, num_hidden_layers=4, **{**EXPERTS, "num_experts": 16}),
    "experts-some": Case(Qwen3MoeConfig, mlp_only_layers=[1], **{**EXPERTS, "num_experts_per_tok": 8}),
}


def fill(model):
    """Gaussian weights of some gain, so that rounding shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * noise)
            elif "embed_tokens" in name and not model.config.tie_word_embeddings:
                weight.copy_(noise)
            else:
                weight.copy_(0.2 * noise if name.endswith("bias") else 1.2 * noise / math.sqrt(weight.shape[-1]))


def adapted(base, settings, dtype):
    """An adapter that adds half as much as the base's maps give."""
    model = get_peft_model(base, LoraConfig(**settings)).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            gain = 1.0
            if "lora_B" in name:
                gain = 0.6 / abs(model.get_submodule(name.split(".lora_B")[0]).scaling["default"])
            if "lora_" in name:
                noise = torch.randn(weight.shape, generator=generator) * gain / math.sqrt(weight.shape[1])
                weight.copy_(noise.to(dtype).float())
    return model


def with_old_keys(folder):
    """Rotary settings as they were written before `rope_parameters`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type", "default")
    if kind != "default":
        config["rope_scaling"] = {"type" if kind == "linear" else "rope_type": kind, **rope}
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config))


def logits_of(model, sequences):
    with torch.no_grad():
        return [model(ids[None]).logits[0].float() for ids in sequences]


def build(case, folder):
    """Writes a checkpoint and its adapters; gives the token ids and everybody's logits."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(case.family(**case.settings), dtype=torch.float32)
    fill(model)
    model.to(case.dtype).save_pretrained(folder, **({"max_shard_size": case.shards} if case.shards else {}))

    def load():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    sequences = [torch.randint(0, case.settings["vocab_size"], (n,), generator=torch.Generator().manual_seed(n))
                 for n in LENGTHS]
    logits = {None: logits_of(load(), sequences)}
    for name, settings in case.adapters.items():
        model, place = adapted(load(), settings, case.dtype), folder / "adapters" / name
        model.save_pretrained(place)
        weights = place / "adapter_model.safetensors"
        save_file({key: value.to(case.dtype) for key, value in load_file(weights).items()}, weights)
        logits[name] = logits_of(model, sequences)
    if case.old:
        with_old_keys(folder)
    return sequences, logits


def score(lockstep, name, folder, adapter, activations, ids):
    (folder / "ids").write_text(" ".join(str(int(token)) for token in ids))
    out = folder / "logits.safetensors"
    command = [lockstep, "score", "--model", folder, "--token-ids", folder / "ids", "--logits", out, "--no-cache",
               "--device", "cpu", "--activations", activations]
    command += ["--adapter", folder / "adapters" / adapter] if adapter else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} {adapter or ''}: {done.stderr.strip()}")
    return load_file(out)["logits"]


def distance(case, got, wanted):
    """In percent: of a mixture the median token's, else of each sequence."""
    if case.sparse():
        got, wanted = torch.cat(got), torch.cat(wanted)
        return 100 * ((got - wanted).norm(dim=1) / wanted.norm(dim=1)).median().item()
    return max(100 * ((g - w).norm() / w.norm()).item() for g, w in zip(got, wanted))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lockstep", type=pathlib.Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"cases; default: all of {', '.join(CASES)}")
    parser.add_argument("--limit", type=float, default=10.0, help="percent; default: 10")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    lockstep, beyond = arguments.lockstep.resolve(), []
    print(f"{'':18} {'':14}     a8     a16   percent")
    for name in arguments.names or CASES:
        case = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            sequences, logits = build(case, folder)
            for adapter, wanted in logits.items():
                found = []
                for mode in ("a8", "a16"):
                    got = [score(lockstep, name, folder, adapter, mode, ids) for ids in sequences]
                    found.append(distance(case, got, wanted))
                print(f"{name:18} {adapter or '':14} {found[0]:6.2f}  {found[1]:6.2f}", flush=True)
                if not max(found) <= arguments.limit:
                    beyond.append(f"{name} {adapter or ''}")
    if beyond:
        sys.exit(f"further off than {arguments.limit} %: {', '.join(beyond)}")


if __name__ == "__main__":
    main()
