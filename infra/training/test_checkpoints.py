"""What transformers saves, fathom imports and computes alike; what fathom exports, transformers loads."""

import json
import subprocess

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from test_train import HERE

pytestmark = pytest.mark.skipif(not (HERE.parents[1] / "node_modules").exists(), reason="needs npm ci")

TOKENS = [(7 * i * i + 3 * i) % 320 for i in range(200)]
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CASES = {
    "llama3 scaling, untied, in shards": {"rope_parameters": LLAMA3, "shard": "200KB"},
    "llama3 scaling, as transformers 4 spells it": {"rope_parameters": LLAMA3, "old": True},
    "a head_dim of its own, tied, bfloat16": {"head_dim": 32, "tie_word_embeddings": True, "dtype": torch.bfloat16},
    "every head its own K/V, float16": {"num_key_value_heads": 6, "dtype": torch.float16},
}


def fathom(*arguments):
    words = ["npx", "fathom", *map(str, arguments)]
    result = subprocess.run(words, cwd=HERE, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def save(folder, shard="5GB", old=False, dtype=torch.float32, **settings):
    """A random LLaMA of four layers in a Hugging Face folder."""
    torch.manual_seed(1)
    config = LlamaConfig(
        **{
            "vocab_size": 320,
            "hidden_size": 96,
            "intermediate_size": 160,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.2,
            **settings,
        }
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder, max_shard_size=shard)
    if old:
        path = folder / "config.json"
        saved = json.loads(path.read_text())
        scaling = saved.pop("rope_parameters")
        saved["rope_theta"] = scaling.pop("rope_theta")
        saved["rope_scaling"] = scaling
        path.write_text(json.dumps(saved))


def last_logits(folder):
    """In float32, of the last of TOKENS."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([TOKENS])).logits[0, -1]


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES.keys())
def test_import_and_export(settings, tmp_path):
    original, nested, exported = (tmp_path / name for name in ("original", "nested", "exported"))
    save(original, **settings)
    expected = last_logits(original)
    fathom("import", original, "--out", nested, "--weights", "fp32", "--exits", "2,4")
    probed = json.loads(fathom("probe", nested, "--tokens", ",".join(map(str, TOKENS)), "--depths", "4", "--json"))
    ours = torch.tensor(probed["exits"][0]["logits"])
    assert (ours - expected).abs().max() < 2e-4
    fathom("export", nested, "--out", exported)
    assert torch.equal(last_logits(exported), expected)
