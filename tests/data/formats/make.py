"""Writes the model of `../tiny` as PyTorch saves it, in several ways. Needs torch and safetensors:

    python make.py
"""
import os
from pathlib import Path

import torch
from safetensors.torch import load_file

HERE = Path(__file__).resolve().parent
MODEL = load_file(HERE.parent / "tiny/model/model.safetensors")


class Call:
    """Unpickling this runs a command."""

    def __reduce__(self):
        return os.system, ("touch EXECUTED",)


def save(name, content, **options):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "pytorch_model.bin", **options)


def prefixed(tensors):
    """As `GPT2LMHeadModel` names them, with the tied head and boolean masks."""
    masks = {name: tensor > 0 for name, tensor in tensors.items() if name.endswith(".attn.bias")}
    named = {"transformer." + name: tensor for name, tensor in (tensors | masks).items()}
    return named | {"lm_head.weight": tensors["wte.weight"]}


bare = {name: tensor for name, tensor in MODEL.items() if not name.endswith(".attn.bias")}
save("f32", MODEL)
save("f16_prefixed", prefixed({name: tensor.half() for name, tensor in MODEL.items()}))
save("bf16_with_a_call", {name: tensor.bfloat16() for name, tensor in bare.items()} | {"call": Call()})
save("only_a_call", Call())
save("before_1.6", {"wte.weight": torch.zeros(2, 2)}, _use_new_zipfile_serialization=False)
