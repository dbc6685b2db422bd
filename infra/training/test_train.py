"""train.py from the command line: one process, and two that shard the model with FSDP2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
FIXTURES = HERE.parents[1] / "test" / "fixtures" / "tiny-llama"


def write_reference_data(reference, path):
    """The reference's batch as records: a prompt, and a completion that is learnt."""
    batch = reference["batch"]
    records = []
    for tokens, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        start = next(i for i, label in enumerate(labels) if label != -100)
        records.append({"prompt_tokens": tokens[:start], "completion_tokens": tokens[start : sum(mask)]})
    path.write_text("\n".join(json.dumps(record) for record in records))


def train(tmp_path, variant, *, processes, batch, accumulation, **settings):
    """Runs train.py on the reference's batch with its optimiser settings. Returns the lines of the log and the output."""
    reference = json.loads((FIXTURES / variant / "reference.json").read_text())
    adamw = reference["soft_adamw"]
    data, config, out = tmp_path / "data.jsonl", tmp_path / "config.yaml", tmp_path / "out"
    write_reference_data(reference, data)
    config.write_text(
        yaml.safe_dump(
            {
                "base": str(FIXTURES / variant),
                "data": str(data),
                "out": str(out),
                "exits": reference["exits"],
                "schedule": "constant",
                "learning_rate": adamw["lr"],
                "betas": adamw["betas"],
                "eps": adamw["eps"],
                "weight_decay": adamw["weight_decay"],
                "clip": adamw["clip"],
                "batch": batch,
                "accumulation": accumulation,
                "epochs": 5,
                "holdout_every": 0,
                "save_dtype": "float32",
            }
            | settings
        )
    )
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "no"}
    command = [sys.executable]
    if processes > 1:
        fsdp = yaml.safe_load((HERE / "configs" / "fsdp2.yaml").read_text())["fsdp_config"]
        environment |= {
            "ACCELERATE_USE_FSDP": "true",
            "FSDP_VERSION": str(fsdp["fsdp_version"]),
            "FSDP_AUTO_WRAP_POLICY": fsdp["fsdp_auto_wrap_policy"],
            "FSDP_TRANSFORMER_CLS_TO_WRAP": fsdp["fsdp_transformer_layer_cls_to_wrap"],
            "FSDP_RESHARD_AFTER_FORWARD": str(fsdp["fsdp_reshard_after_forward"]).lower(),
            "FSDP_ACTIVATION_CHECKPOINTING": str(fsdp["fsdp_activation_checkpointing"]).lower(),
            "FSDP_CPU_RAM_EFFICIENT_LOADING": str(fsdp["fsdp_cpu_ram_efficient_loading"]).lower(),
            "FSDP_STATE_DICT_TYPE": fsdp["fsdp_state_dict_type"],
        }
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    result = subprocess.run(
        [*command, str(HERE / "train.py"), "--config", str(config)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()], out, reference


@pytest.mark.parametrize("variant", ["tied", "untied"])
@pytest.mark.parametrize(
    ("processes", "batch", "accumulation"), [(1, 4, 1), (1, 1, 4), (2, 4, 1), (2, 3, 2)], ids=str
)
def test_equals_the_reference(tmp_path, variant, processes, batch, accumulation):
    """Also (2, 3, 2): the last micro-batch has one example, so that one process has nothing to learn there."""
    log, out, reference = train(tmp_path, variant, processes=processes, batch=batch, accumulation=accumulation)
    assert [line["loss"] for line in log] == pytest.approx(reference["soft_adamw"]["losses"], rel=1e-3)
    assert list(log[0]["exits"].values()) == pytest.approx(reference["loss_per_exit"], rel=1e-5)
    assert log[0]["grad_norm"] == pytest.approx(reference["soft"]["grad_norm"], rel=1e-4)

    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    before = load_file(FIXTURES / variant / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(after[name].shape == before[name].shape for name in before)
    assert not torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    _, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize("processes", [1, 2])
def test_sortednet_leaves_deeper_layers_alone(tmp_path, processes):
    """Without decay, a run that never draws an exit deeper than some depth leaves the layers above as they were."""
    from objectives import exit_weights

    log, out, reference = train(
        tmp_path, "tied", processes=processes, batch=4, accumulation=1, method="sortednet", weight_decay=0.0, max_steps=2
    )
    drawn = [exit_weights("sortednet", reference["exits"], step=step) for step in range(2)]
    assert [list(line["exits"]) for line in log] == [[str(depth) for depth in weights] for weights in drawn]
    deepest = max(max(weights) for weights in drawn)
    before = load_file(FIXTURES / "tied" / "model.safetensors")
    after = load_file(out / "model.safetensors")
    for layer in range(reference["exits"][-1]):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        assert torch.equal(after[name], before[name]) == (layer >= deepest), layer


def test_held_out_losses(tmp_path):
    log, _, reference = train(tmp_path, "untied", processes=2, batch=4, accumulation=1, holdout_every=4, max_steps=1)
    held_out = log[-1]["held_out"]
    assert [int(depth) for depth in held_out] == reference["exits"]
    assert all(0 < loss < 20 for loss in held_out.values())


@pytest.mark.parametrize(
    ("settings", "message"), [({"exits": [2, 4]}, "end with the model's 8 layers"), ({"colour": "red"}, "colour")]
)
def test_wrong_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(AssertionError, match=message):
        train(tmp_path, "tied", processes=1, batch=4, accumulation=1, **settings)
