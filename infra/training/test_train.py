"""train.py from the command line: one plain process, and `accelerate launch` with the shipped FSDP2 configuration."""

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

from objectives import exit_weights

HERE = Path(__file__).parent
FIXTURES = HERE.parents[1] / "test" / "fixtures" / "tiny-llama"
# accelerate's launcher has no switch for FSDP2 on CPUs; this variable makes its processes use them, with gloo.
ON_CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def write_reference_data(reference, path):
    """The reference's batch as records: a prompt, and a completion that is learnt."""
    batch = reference["batch"]
    records = []
    for tokens, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        start = next(i for i, label in enumerate(labels) if label != -100)
        records.append({"prompt_tokens": tokens[:start], "completion_tokens": tokens[start : sum(mask)]})
    path.write_text("\n".join(json.dumps(record) for record in records))


def launcher(sharded, mixed_precision="no"):
    """The start of a command: Python for 0 sharded processes, else accelerate's launcher, on a free port."""
    if sharded == 0:
        return [sys.executable]
    options = {"config_file": HERE / "configs" / "fsdp2.yaml", "num_processes": sharded, "mixed_precision": mixed_precision}
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--main_process_port", "0"]
    return launch + [word for name, value in options.items() for word in (f"--{name}", str(value))]


def train(tmp_path, variant, *, sharded, batch=4, accumulation=1, mixed_precision="no", **settings):
    """Runs train.py on the reference's batch with its optimiser settings. Returns the lines of the log and the output."""
    reference = read_reference(variant)
    adamw = reference["soft_adamw"]
    folder = tmp_path / f"{variant}-{settings.get('method', 'soft')}-{sharded}"
    data, config, out = folder / "data.jsonl", folder / "config.yaml", folder / "out"
    folder.mkdir()
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
    result = subprocess.run(
        [*launcher(sharded, mixed_precision), str(HERE / "train.py"), "--config", str(config)],
        env=os.environ | ON_CPU,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()], out


def read_reference(variant):
    return json.loads((FIXTURES / variant / "reference.json").read_text())


@pytest.mark.parametrize("variant", ["tied", "untied"])
@pytest.mark.parametrize(
    ("sharded", "batch", "accumulation"), [(0, 4, 1), (0, 1, 4), (1, 4, 1), (2, 4, 1), (2, 3, 2)], ids=str
)
def test_soft_equals_the_reference(tmp_path, variant, sharded, batch, accumulation):
    """Also (2, 3, 2): the last micro-batch has one example, so that one process has nothing to learn there."""
    reference = read_reference(variant)
    log, out = train(tmp_path, variant, sharded=sharded, batch=batch, accumulation=accumulation)
    assert [line["loss"] for line in log] == pytest.approx(reference["soft_adamw"]["losses"], rel=1e-5)
    assert list(log[0]["exits"].values()) == pytest.approx(reference["loss_per_exit"], rel=1e-5)
    assert log[0]["grad_norm"] == pytest.approx(reference["soft"]["grad_norm"], rel=1e-5)

    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    before = load_file(FIXTURES / variant / "model.safetensors")
    after = load_file(out / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(after[name].shape == before[name].shape for name in before)
    assert not torch.equal(after["model.norm.weight"], before["model.norm.weight"])
    _, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


# With seed 207, SortedNet draws the reference's `sorted_sample` exit (the second one) first, and all exits within five steps.
@pytest.mark.parametrize("variant", ["tied", "untied"])
@pytest.mark.parametrize(
    ("method", "name", "seed"), [("soft", "soft", 42), ("lite", "lite", 42), ("sortednet", "sorted_sample", 207)]
)
def test_fsdp2_equals_one_process(tmp_path, variant, method, name, seed):
    reference = read_reference(variant)
    log, out = train(tmp_path, variant, sharded=0, method=method, seed=seed)
    sharded_log, sharded_out = train(tmp_path, variant, sharded=2, method=method, seed=seed)
    assert len(sharded_log) == len(log) == 5
    for ours, theirs in zip(sharded_log, log, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["exits"] == pytest.approx(theirs["exits"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-5)
    weights, sharded_weights = load_file(out / "model.safetensors"), load_file(sharded_out / "model.safetensors")
    assert sharded_weights.keys() == weights.keys()
    # A tenth of one step: AdamW divides a gradient near zero by its own size, and so magnifies how it was rounded.
    for tensor in weights:
        torch.testing.assert_close(sharded_weights[tensor], weights[tensor], rtol=0, atol=1e-4)

    of_exit = dict(zip(map(str, reference["exits"]), reference["loss_per_exit"], strict=True))
    assert sharded_log[0]["loss"] == pytest.approx(reference[name]["loss"], rel=1e-5)
    assert sharded_log[0]["grad_norm"] == pytest.approx(reference[name]["grad_norm"], rel=1e-5)
    assert sharded_log[0]["exits"] == pytest.approx({exit: of_exit[exit] for exit in sharded_log[0]["exits"]}, rel=1e-5)
    assert {exit for line in log for exit in line["exits"]} == set(of_exit)


def test_bf16_rounds_the_arithmetic_but_not_the_losses(tmp_path):
    reference = read_reference("untied")
    log, out = train(tmp_path, "untied", sharded=2, mixed_precision="bf16", save_dtype="bfloat16")
    assert [line["loss"] for line in log] == pytest.approx(reference["soft_adamw"]["losses"], rel=0.03)
    targets = sum(label != -100 for row in reference["batch"]["labels"] for label in row[1:])
    sums = torch.tensor([loss for line in log for loss in line["exits"].values()]) * targets
    assert (sums.bfloat16().float() - sums).abs().div(sums).max() > 1e-3
    assert {value.dtype for value in load_file(out / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("sharded", [0, 2])
def test_sortednet_leaves_deeper_layers_alone(tmp_path, sharded):
    """Without decay, a run that never draws an exit deeper than some depth leaves the layers above as they were."""
    reference = read_reference("tied")
    log, out = train(tmp_path, "tied", sharded=sharded, method="sortednet", weight_decay=0.0, max_steps=2)
    drawn = [exit_weights("sortednet", reference["exits"], step=step) for step in range(2)]
    assert [list(line["exits"]) for line in log] == [[str(depth) for depth in weights] for weights in drawn]
    deepest = max(max(weights) for weights in drawn)
    before = load_file(FIXTURES / "tied" / "model.safetensors")
    after = load_file(out / "model.safetensors")
    for layer in range(reference["exits"][-1]):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        assert torch.equal(after[name], before[name]) == (layer >= deepest), layer


def test_held_out_losses(tmp_path):
    log, _ = train(tmp_path, "untied", sharded=0, holdout_every=4, max_steps=1)
    sharded_log, _ = train(tmp_path, "untied", sharded=2, holdout_every=4, max_steps=1)
    held_out = log[-1]["held_out"]
    assert [int(depth) for depth in held_out] == read_reference("untied")["exits"]
    assert all(0 < loss < 20 for loss in held_out.values())
    assert sharded_log[-1]["held_out"] == pytest.approx(held_out, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"), [({"exits": [2, 4]}, "end with the model's 8 layers"), ({"colour": "red"}, "colour")]
)
def test_wrong_settings_are_refused(tmp_path, settings, message):
    with pytest.raises(AssertionError, match=message):
        train(tmp_path, "tied", sharded=0, **settings)
