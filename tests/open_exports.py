"""Opens exports with the readers of the tools that they are for: open_exports.py FOLDER

FOLDER has a folder for each tool. The tools are installed without what only their training and their
language models need; of that, names that their modules import are stood in for here. Everything that
reads a file is theirs.
"""

import importlib.abc
import importlib.machinery
import json
import sys
import threading
import types
import urllib.request
from pathlib import Path

NOT_READERS = ("transformers", "transformer_lens", "datasets", "faiss", "sentence_transformers", "sparsify", "vllm",
               "bitsandbytes", "plotly", "nltk", "babe", "wandb", "huggingface_hub", "nnsight", "aiofiles", "fire",
               "blobfile", "flask", "beartype", "httpx", "openai", "matplotlib", "pandas", "tokenizers", "accelerate")


class Standin(types.ModuleType):
    """A module of which every name is a class that does nothing."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {"__init__": lambda self, *a, **k: None, "__class_getitem__": classmethod(lambda cls, _: cls)})
        setattr(self, name, made)
        return made


class Standins(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NOT_READERS:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Standin(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(Standins())
import torch  # noqa: E402


class HookedRootModule(torch.nn.Module):
    """What TransformerLens adds to modules is for hooks; nothing here sets one."""

    def setup(self):
        pass


for name in ["hook_points", "HookedTransformer"]:
    module = sys.modules["transformer_lens." + name] = Standin("transformer_lens." + name)
    module.HookedRootModule, module.HookPoint = HookedRootModule, torch.nn.Identity


def as_of_pytorch_2():
    """What a PyTorch before 2.1 lacks: a name, and putting tensors into modules that have none yet."""
    schedulers = torch.optim.lr_scheduler
    schedulers.LRScheduler = getattr(schedulers, "LRScheduler", None) or schedulers._LRScheduler
    if "assign" in torch.nn.Module.load_state_dict.__code__.co_varnames:
        return

    def load(self, state, strict=True, assign=False):
        own = {name for name, _ in self.named_parameters()}
        assert not strict or own == set(state), (own, set(state))
        for name, value in state.items():
            setattr(self, name, torch.nn.Parameter(value, requires_grad=False))

    torch.nn.Module.load_state_dict = load


def saelens(folder):
    as_of_pytorch_2()
    from sae_lens.saes.sae import SAE
    from sae_lens.saes.transcoder import Transcoder

    expected = json.loads((folder.parent / "expected.json").read_text())
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(expected["dictionaries"]), names
    for name in names:
        sae = SAE.load_from_disk(str(folder / name))
        assert isinstance(sae, Transcoder) == name.startswith("mlp"), name
        known = expected["dictionaries"][name]
        x = torch.tensor(known["x"], dtype=torch.float32)
        if name.startswith("att"):
            # z comes by heads.
            heads = known["heads"]
            x = x.reshape(x.shape[0], heads, -1)
        activations = sae.encode(x)
        wanted = torch.zeros_like(activations)
        for token, active in enumerate(known["active"]):
            for feature, value in active:
                wanted[token, feature] = value
        assert torch.allclose(activations, wanted, rtol=1e-4, atol=1e-5), (name, (activations - wanted).abs().max())
        out = sae.decode(activations).reshape(len(known["out"]), -1)
        assert torch.allclose(out, torch.tensor(known["out"]), rtol=1e-4, atol=1e-4), name
    print(f"sae-lens: {len(names)} dictionaries")


def neuronpedia(folder):
    from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch

    features = 0
    for source in sorted(folder.iterdir()):
        skipped = json.loads((source / "skipped_indexes.json").read_text())
        settings = json.loads((source / "run_settings.json").read_text())
        indices = []
        for path in sorted(source.glob("batch-*.json")):
            text = json.loads(path.read_text())
            batch = NeuronpediaDashboardBatch(**text)
            assert batch.to_dict() == text, path
            assert f"{batch.layer}-{batch.sae_set}" == source.name
            assert (batch.model_id, batch.layer) == (settings["model_id"], settings["layer"])
            for feature in batch.features:
                indices.append(feature.feature_index)
                heights = feature.freq_hist_data_bar_heights
                assert len(heights) == len(feature.freq_hist_data_bar_values)
                shares = {}
                for activation in feature.activations:
                    assert len(activation.tokens) == len(activation.values)
                    value = activation.values[activation.qualifying_token_index]
                    assert value == max(activation.values)
                    if activation.bin_contains >= 0:
                        assert activation.bin_min < value <= activation.bin_max + 1e-6
                        shares[activation.bin_min] = activation.bin_contains
                assert sum(shares.values()) <= 1 + 1e-9
        assert not set(indices) & set(skipped["skipped_indexes"])
        features += len(indices)
        for line in (source / "explanations.jsonl").read_text().splitlines():
            line = json.loads(line)
            assert int(line["index"]) in indices and line["layer"] == source.name and line["description"]
    print(f"sae-dashboard: {features} features")


def delphi(folder):
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents.loader import LatentDataset

    expected = json.loads((folder.parent / "expected.json").read_text())["latents"]
    modules = sorted(path.name for path in (folder / "latents").iterdir())
    dataset = LatentDataset(folder / "latents", SamplerConfig(), ConstructorConfig(), tokenizer=object(), modules=modules)
    found = {}
    for buffer in dataset.buffers:
        latents, locations, activations = buffer.load_data_per_latent()
        for latent, places, values in zip(latents.tolist(), locations, activations):
            found[f"{buffer.module_path}/{latent}"] = [[*place[:2], value] for place, value in zip(places.tolist(), values.tolist())]
    assert found.keys() == expected.keys(), set(found) ^ set(expected)
    for name, rows in expected.items():
        assert [row[:2] for row in found[name]] == [row[:2] for row in rows], name
        assert all(abs(a[2] - b[2]) <= 1e-6 * abs(b[2]) for a, b in zip(found[name], rows)), name
    tokens = dataset.tokens
    contexts = json.loads((folder.parent / "expected.json").read_text())["contexts"]
    assert len(tokens) == len(contexts)
    for row, ids in zip(tokens.tolist(), contexts):
        assert row[:len(ids)] == ids
    one = next(iter(expected))
    module, latent = one.split("/")
    selected = LatentDataset(folder / "latents", SamplerConfig(), ConstructorConfig(), tokenizer=object(), modules=[module],
                             latents={module: torch.tensor([int(latent)])})
    assert [int(found.latent.latent_index) for buffer in selected.buffers for found in buffer] == [int(latent)]
    explained = list((folder / "explanations").glob("*.txt"))
    assert explained and all(json.loads(path.read_text()) for path in explained)
    print(f"delphi: {len(found)} latents of {len(modules)} modules")


def circuit_tracer(folder):
    from circuit_tracer.frontend.graph_models import Model
    from circuit_tracer.frontend.local_server import serve

    server = serve(str(folder), port=0 if len(sys.argv) < 3 else int(sys.argv[2]))
    try:
        port = server.httpd.server_address[1]

        def get(path):
            with urllib.request.urlopen(f"http://localhost:{port}/{path}") as reply:
                return json.loads(reply.read())

        graphs = get("data/graph-metadata.json")["graphs"]
        features = set()
        for graph in graphs:
            model = Model.model_validate(get(f"graph_data/{graph['slug']}.json"))
            assert model.metadata.slug == graph["slug"] and model.metadata.prompt_tokens
            ids = {node.node_id for node in model.nodes}
            assert all(link["source"] in ids and link["target"] in ids for link in model.links)
            # The viewer asks for a feature's file from where the graph says.
            for node in model.nodes:
                if node.feature_type == "cross layer transcoder":
                    features.add((model.metadata.scan, node.feature, node.clerp))
        for scan, number, label in features:
            assert scan.startswith("./data/")
            feature = get(f"{scan[2:]}/{number}.json")
            assert label.startswith(feature["name"]), (label, feature["name"])
            assert feature["top_logits"] and feature["bottom_logits"] and feature["examples_quantiles"]
            for quantile in feature["examples_quantiles"]:
                for example in quantile["examples"]:
                    assert len(example["tokens"]) == len(example["tokens_acts_list"]) > example["train_token_ind"]
        print(f"circuit-tracer: {len(graphs)} graphs, {len(features)} features")
    finally:
        server.stop()


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for tool, reader in [("saelens", saelens), ("neuronpedia", neuronpedia), ("delphi", delphi), ("circuit-tracer", circuit_tracer)]:
        reader(root / tool)
