"""The README's commands, on narrow random models with as many layers as LLaMA-2 7B and 13B."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from test_train import HERE, ON_CPU, launcher

RECORDS = [
    {"instruction": f"Count to {number}.", "input": "" if number % 2 else "In words.", "output": f"1 to {number}"}
    for number in range(2, 12)
]
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (HERE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
TRAINING = [line for line in COMMANDS if line.startswith("accelerate launch ")]
IMPORTS = [line for line in COMMANDS if line.startswith("npx fathom import ")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "alpaca_data.json"
    path.write_text(json.dumps(RECORDS))
    return path


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """By number of layers: a folder like meta-llama/Llama-2-7b-hf."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator([json.dumps(record) for record in RECORDS], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    folders = {}
    for layers in (32, 40):
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=512,
        )
        folders[layers] = tmp_path_factory.mktemp(f"{layers}-layers")
        LlamaForCausalLM(config).save_pretrained(folders[layers])
        tokenizer.save_pretrained(folders[layers])
    return folders


def train(command, bases, data, out):
    """Runs a training command with another model, data and folder, for one step on one CPU process."""
    words = shlex.split(command)
    script = words.index("train.py")
    assert words[:script] == ["accelerate", "launch", "--config_file", "configs/fsdp2.yaml"]
    settings = yaml.safe_load((HERE / words[words.index("--config") + 1]).read_text())
    overrides = ["--base", bases[settings["exits"][-1]], "--data", data, "--out", out, "--max-steps", "1"]
    words = [*launcher(1, mixed_precision="bf16"), *words[script:], *map(str, overrides)]
    run(words, os.environ | ON_CPU)
    return settings["exits"]


def run(words, environment=None):
    result = subprocess.run(
        words, cwd=HERE, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return result.stdout


def test_there_is_a_command_for_each_method_and_model():
    assert {re.search(r"--method (\w+)", command)[1] for command in TRAINING} == {"sft", "soft", "lite", "sortednet"}
    assert {re.search(r"llama2-\w+", command)[0] for command in TRAINING} == {"llama2-7b", "llama2-13b"}
    assert len(IMPORTS) == 1


@pytest.mark.parametrize("command", TRAINING)
def test_training(command, bases, data, tmp_path):
    exits = train(command, bases, data, tmp_path / "out")
    log = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [list(line) for line in log] == [["step", "loss", "exits", "grad_norm", "lr", "seconds"], ["step", "held_out"]]
    method = re.search(r"--method (\w+)", command)[1]
    expected = {"sft": exits[-1:], "sortednet": [int(exit) for exit in log[0]["exits"]]}.get(method, exits)
    assert [int(exit) for exit in log[0]["exits"]] == expected
    assert log[0]["lr"] == 2e-5
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


@pytest.mark.skipif(not (HERE.parents[1] / "node_modules").exists(), reason="needs npm ci")
def test_import(bases, data, tmp_path):
    trained, nested = tmp_path / "trained", tmp_path / "nested"
    exits = train(TRAINING[0], bases, data, trained)
    words = shlex.split(IMPORTS[0])
    assert words[3] == re.search(r"--out (\S+)", TRAINING[0])[1]
    words[3], words[words.index("--out") + 1] = str(trained), str(nested)
    run(words)
    manifest = json.loads((nested / "manifest.json").read_text())
    assert manifest["exits"] == exits
    inspected = run(["npx", "fathom", "inspect", str(nested)])
    assert "verified" in inspected
