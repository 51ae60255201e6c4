"""Hugging Face folders: safetensors, config.json, PEFT adapters."""

import functools
import json
import math
import os
from dataclasses import dataclass

import numpy as np

from floats import F32, bits, finite, from_bits
from layers import Adapter, Linear, prepared, router_rows, weight_rows

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "I32": "<i4", "I64": "<i8"}


def read_safetensors(path):
    """{name: array}; bfloat16 comes widened to float32, everything else as it is."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    data = np.memmap(path, np.uint8, "r")[8 + length :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = from_bits(values.astype(np.uint32) << 16) if entry["dtype"] == "BF16" else values
    return tensors


def write_safetensors(path, tensors):
    """Float32, float16, int8 and int32 arrays."""
    names = {np.dtype(v): k for k, v in DTYPES.items() if k != "BF16"}
    header, data = {}, b""
    for name, values in tensors.items():
        begin, data = len(data), data + np.ascontiguousarray(values).tobytes()
        header[name] = {"dtype": names[values.dtype], "shape": list(values.shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


def read_json(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return json.load(file)


@dataclass
class Config:
    """What the arithmetic needs to know of config.json."""

    layers: int
    heads: int
    key_heads: int
    head_dim: int
    eps: np.float32
    head_norms: bool
    tied: bool
    theta: float
    scaling: dict
    windows: list  # per layer: the sliding window, or None
    experts: list  # per layer: the number of experts, or 0
    chosen: int
    renormalise: bool


def read_config(folder):
    c = read_json(folder, "config.json")
    kind = c["model_type"]
    if kind not in ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe"):
        raise ValueError(f"model type {kind} is not covered")
    if c.get("hidden_act", "silu") != "silu":
        raise ValueError("only silu is covered")
    layers, heads = c["num_hidden_layers"], c["num_attention_heads"]
    head_dim = c.get("head_dim") or c["hidden_size"] // heads

    scaling = c.get("rope_parameters") or c.get("rope_scaling") or {}
    scaling = {"rope_type": scaling.get("type", "default"), **scaling}
    if scaling.get("partial_rotary_factor", c.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ValueError("heads rotated in part are not covered")

    window = c.get("sliding_window", 4096 if kind == "mistral" else None)
    if kind == "llama" or kind != "mistral" and not c.get("use_sliding_window", False):
        window = None
    slides = ["sliding_attention" if kind == "mistral" or n >= c.get("max_window_layers", 28) else "full_attention"
              for n in range(layers)]
    slides = c.get("layer_types") or slides

    experts = c.get("num_experts", c.get("num_local_experts", 128)) if kind == "qwen3_moe" else 0
    dense, step = c.get("mlp_only_layers", []), c.get("decoder_sparse_step", 1)
    sparse = [n not in dense and (n + 1) % step == 0 for n in range(layers)]
    return Config(
        layers=layers,
        heads=heads,
        key_heads=c.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        eps=F32(c["rms_norm_eps"]),
        head_norms=kind in ("qwen3", "qwen3_moe"),
        tied=c.get("tie_word_embeddings", False),
        theta=float(scaling.get("rope_theta", c.get("rope_theta", 10000.0))),
        scaling=scaling,
        windows=[window if s == "sliding_attention" else None for s in slides],
        experts=[experts if s else 0 for s in sparse],
        chosen=c.get("num_experts_per_tok", 0),
        renormalise=c.get("norm_topk_prob", False),
    )


class Checkpoint:
    """A model's tensors, prepared and quantised as sections 2, 3, 5 and 10 say, when they are first asked for."""

    def __init__(self, folder, adapter=None):
        self.config = read_config(folder)
        index = os.path.join(folder, "model.safetensors.index.json")
        shards = set(read_json(index)["weight_map"].values()) if os.path.exists(index) else {"model.safetensors"}
        self.tensors = {}
        for shard in sorted(shards):
            self.tensors |= read_safetensors(os.path.join(folder, shard))
        self.prepared = not any(values.dtype == np.int8 for values in self.tensors.values())
        self.adapters = read_adapter(adapter) if adapter else {}
        for path, (a, b, _) in self.adapters.items():
            fits = (b.shape[0], a.shape[1]) == self.float_weight(path).shape
            if not fits or path.endswith(".mlp.gate") or ".experts." in path:
                raise ValueError(f"the adapter does not fit {path}")

    def vector(self, name):
        """A norm's weight or a bias, widened."""
        return self.tensors[name].astype(F32)

    def norm(self, name):
        """The weight of a norm over a whole row: 1 where the maps that read it have taken it in."""
        weight = self.vector(name + ".weight")
        return np.ones_like(weight) if self.prepared else weight

    def float_weight(self, path):
        """The weight of the linear map of that name; a tied head's is the embedding matrix."""
        name = "model.embed_tokens" if path == "lm_head" and self.config.tied else path
        return self.tensors[name + ".weight"].astype(F32)

    @functools.cache
    def embedding(self):
        """§5 the table: IEEE half as it is, binary32 rounded to bfloat16 (which leaves bfloat16 as it is)."""
        table = self.tensors["model.embed_tokens.weight"]
        return table.astype(F32) if table.dtype == np.float16 else to_bfloat16(table)

    @functools.cache
    def linear(self, path):
        """§2, §3 the linear map of that name, with its bias and adapter."""
        bias = self.vector(path + ".bias") if path + ".bias" in self.tensors else None
        adapter = None
        if path in self.adapters:
            a, b, g = self.adapters[path]
            adapter = Adapter(self.rows(path, a, weight_rows), weight_rows(b), g)
        return Linear(self.int8(path) or self.rows(path, self.float_weight(path), weight_rows), bias, adapter)

    @functools.cache
    def router(self, path):
        """§10"""
        if self.int8(path):
            raise ValueError(f"{path}: a router of integers is not covered")
        return self.rows(path, self.float_weight(path), router_rows)

    def rows(self, path, w, quantised):
        """The float weight w of that linear map, or an adapter's A there: prepared if the checkpoint is, quantised."""
        if not self.prepared:
            return quantised(w)
        norm = norm_before(path)
        return prepared(w, norm and self.vector(norm + ".weight"), quantised)

    def int8(self, path):
        """(integers, scales) that the checkpoint holds, if it does."""
        weight = self.tensors.get(path + ".weight")
        if weight is None or weight.dtype != np.int8:
            return None
        if np.any(self.tensors.get(path + ".weight_zero_point", 0)):
            raise ValueError(f"{path}: a zero point is not covered")
        scale = finite(self.vector(path + ".weight_scale")).reshape(-1)
        if scale.size not in (1, len(weight)):
            raise ValueError(f"{path}: {scale.size} scales for {len(weight)} rows")
        return weight.astype(np.int64), np.broadcast_to(scale, len(weight))


def norm_before(path):
    """The norm whose output the linear map of that name reads, or None."""
    if path == "lm_head":
        return "model.norm"
    read = dict.fromkeys(("q_proj", "k_proj", "v_proj"), "input_layernorm")
    read |= dict.fromkeys(("gate_proj", "up_proj", "gate"), "post_attention_layernorm")
    *layer, last = path.split(".")
    return ".".join([*layer[:3], read[last]]) if last in read else None


def to_bfloat16(x):
    """Rounded to bfloat16, ties to even, and widened again."""
    u = bits(finite(x))
    return from_bits((u + 0x7FFF + (u >> 16 & 1)) & 0xFFFF0000)


def read_adapter(folder):
    """§3 {path of the linear map: (A, B, g)} of a PEFT folder, not yet quantised."""
    c = read_json(folder, "adapter_config.json")
    if c.get("peft_type", "LORA") != "LORA" or c.get("use_dora") or c.get("lora_bias") or c.get("fan_in_fan_out"):
        raise ValueError("only plain LoRA is covered")
    tensors = read_safetensors(os.path.join(folder, "adapter_model.safetensors"))
    prefix, ends = "base_model.model.", (".lora_A.weight", ".lora_B.weight")
    if not all(name.startswith(prefix) and name.endswith(ends) for name in tensors):
        raise ValueError("the adapter holds more than A and B")
    adapters = {}
    for path in sorted({name.removeprefix(prefix)[: -len(ends[0])] for name in tensors}):
        a, b = (tensors[prefix + path + end].astype(F32) for end in ends)
        rank = pattern(c.get("rank_pattern"), path, c["r"])
        alpha = pattern(c.get("alpha_pattern"), path, c["lora_alpha"])
        if a.shape[0] != rank or b.shape[1] != rank:
            raise ValueError(f"{path}: rank {rank} in the config, {a.shape[0]} and {b.shape[1]} in the tensors")
        g = F32(alpha / math.sqrt(rank) if c.get("use_rslora") else alpha / rank)
        adapters[path] = a, b, g
    return adapters


def pattern(patterns, path, otherwise):
    """The value of the first key that is the path or its end after a dot."""
    return next((v for k, v in (patterns or {}).items() if ("." + path).endswith("." + k)), otherwise)
