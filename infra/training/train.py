"""Trains all exits of a LLaMA: accelerate launch --config_file configs/fsdp2.yaml train.py --config configs/llama2-7b.yaml"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass, field, fields

import torch
import yaml
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, set_seed
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoModelForCausalLM, AutoTokenizer

import data
from nested_llama import NestedLlama
from objectives import METHODS, exit_weights


@dataclass
class Config:
    base: str
    data: str
    out: str
    exits: list
    method: str = "soft"
    exit_weights: list = None
    exits_per_step: int = 1
    learning_rate: float = 2e-5
    schedule: str = "cosine"
    warmup: int = 0
    # Sequences per forward pass, all processes together; a step is `batch * accumulation` sequences.
    batch: int = 32
    accumulation: int = 8
    epochs: int = 3
    max_steps: int = None
    max_length: int = 512
    seed: int = 42
    weight_decay: float = 0.0
    betas: list = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    clip: float = 1.0
    holdout_every: int = 50
    save_dtype: str = "bfloat16"


def read_config():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file of the settings")
    for name in ("base", "data", "out"):
        parser.add_argument(f"--{name}", help="overrides the file")
    parser.add_argument("--method", choices=METHODS, help="overrides the file")
    parser.add_argument("--max-steps", type=int, help="overrides the file")
    args = vars(parser.parse_args())
    with open(args["config"], encoding="utf-8") as file:
        settings = yaml.safe_load(file)
    settings |= {name: value for name, value in args.items() if name != "config" and value is not None}
    known = {setting.name for setting in fields(Config)}
    unknown = sorted(settings.keys() - known)
    missing = sorted({"base", "data", "out", "exits"} - settings.keys())
    if unknown or missing:
        parser.error(f"{args['config']}: unknown settings {unknown}, missing settings {missing}")
    return Config(**settings)


def learning_rate(config, step, steps):
    """Up to the peak within the warm-up, then constant, or half a cosine down to zero."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / (config.warmup + 1)
    if config.schedule == "constant":
        return config.learning_rate
    progress = min(1.0, (step - config.warmup) / max(1, steps - config.warmup))
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def start_accelerator():
    plugin = fsdp_plugin() if os.environ.get("ACCELERATE_USE_FSDP", "false") == "true" else None
    accelerator = Accelerator(fsdp_plugin=plugin)
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards on GPUs only. Turning it on by hand, in both places that record it, lets CPUs run the same code.
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin
    sharded = accelerator.distributed_type == DistributedType.FSDP and accelerator.is_fsdp2
    if accelerator.num_processes > 1 and not sharded:
        raise SystemExit("several processes need FSDP2: accelerate launch --config_file configs/fsdp2.yaml train.py ...")
    return accelerator


def fsdp_plugin():
    """Settings come from the launcher's environment, except where bf16 begins and ends."""
    if os.environ.get("ACCELERATE_MIXED_PRECISION") != "bf16":
        return FullyShardedDataParallelPlugin()
    # accelerate's own policy would also add up the processes' gradients in bf16, and round the losses to three digits.
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    return FullyShardedDataParallelPlugin(mixed_precision_policy=policy)


def check_exits(config, layers):
    exits = config.exits
    if exits != sorted(set(exits)) or exits[0] < 1 or exits[-1] != layers:
        raise SystemExit(f"exits {exits}: they must ascend and end with the model's {layers} layers")


def load_tokenizer(base):
    has_one = not os.path.isdir(base) or os.path.exists(os.path.join(base, "tokenizer_config.json"))
    return AutoTokenizer.from_pretrained(base) if has_one else None


def train_step(accelerator, model, optimizer, micro_batches, weights, clip):
    """One optimiser step. Returns the mean loss per depth and the gradient's norm before clipping."""
    world = accelerator.num_processes
    targets = sum(example.targets for micro in micro_batches for example in micro)
    sums = {depth: torch.zeros((), device=accelerator.device) for depth in weights}
    for micro in micro_batches:
        batch = data.collate(data.share(micro, accelerator.process_index, world), accelerator.device)
        # Gradients are averaged over the processes, hence `world`.
        loss, exit_sums = model(**batch, weights=weights, scale=world / targets)
        accelerator.backward(loss)
        for depth, value in exit_sums.items():
            sums[depth] += value
    norm = accelerator.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    optimizer.zero_grad()
    losses = accelerator.reduce(torch.stack(list(sums.values())), "sum") / targets
    return dict(zip(sums, losses.tolist(), strict=True)), float(norm)


@torch.no_grad()
def evaluate(accelerator, model, examples, exits, batch):
    """Mean loss per depth over `examples`, nats per token."""
    weights = {depth: 1.0 for depth in exits}
    sums = torch.zeros(len(exits), device=accelerator.device)
    for start in range(0, len(examples), batch):
        part = data.share(examples[start : start + batch], accelerator.process_index, accelerator.num_processes)
        _, exit_sums = model(**data.collate(part, accelerator.device), weights=weights, scale=1.0)
        sums += torch.stack([exit_sums[depth] for depth in exits])
    total = accelerator.reduce(sums, "sum") / sum(example.targets for example in examples)
    return dict(zip(exits, total.tolist(), strict=True))


def save(accelerator, model, tokenizer, config):
    """Writes a Hugging Face folder from the first process."""
    state = accelerator.get_state_dict(model)
    if not accelerator.is_main_process:
        return
    dtype = getattr(torch, config.save_dtype)
    language_model = accelerator.unwrap_model(model).language_model
    # One by one: a full-precision tensor is freed as soon as it is converted.
    for name in list(state):
        state[name.removeprefix("language_model.")] = state.pop(name).to(dtype)
    if language_model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    language_model.config.dtype = dtype
    language_model.save_pretrained(config.out, state_dict=state, max_shard_size="5GB")
    if tokenizer is not None:
        tokenizer.save_pretrained(config.out)


def main():
    config = read_config()
    accelerator = start_accelerator()
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.base)
    language_model = AutoModelForCausalLM.from_pretrained(config.base, dtype=torch.float32)
    check_exits(config, language_model.config.num_hidden_layers)
    examples, held_out = data.load(config.data, tokenizer, config.max_length, config.holdout_every)
    model = NestedLlama(language_model).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay
    )
    model, optimizer = accelerator.prepare(model, optimizer)

    steps = data.count_steps(examples, config.batch, config.accumulation, config.epochs)
    steps = min(steps, config.max_steps or steps)
    if accelerator.is_main_process:
        os.makedirs(config.out, exist_ok=True)
        with open(os.path.join(config.out, "training.json"), "w", encoding="utf-8") as file:
            json.dump(asdict(config), file, indent=2)
    started = time.monotonic()
    batches = data.steps(examples, config.batch, config.accumulation, config.epochs, config.seed)
    for step, micro_batches in zip(range(steps), batches):
        weights = exit_weights(
            config.method,
            config.exits,
            step=step,
            seed=config.seed,
            weights=config.exit_weights,
            exits_per_step=config.exits_per_step,
        )
        rate = learning_rate(config, step, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses, norm = train_step(accelerator, model, optimizer, micro_batches, weights, config.clip)
        loss = sum(weights[depth] * value for depth, value in losses.items())
        if not math.isfinite(loss):
            raise SystemExit(f"step {step}: the loss is {loss}")
        log(accelerator, config, {"step": step, "loss": loss, "exits": losses, "grad_norm": norm, "lr": rate,
                                  "seconds": round(time.monotonic() - started, 1)})
    if held_out:
        log(accelerator, config, {"step": steps, "held_out": evaluate(accelerator, model, held_out, config.exits, config.batch)})
    save(accelerator, model, tokenizer, config)
    accelerator.end_training()


def log(accelerator, config, entry):
    if not accelerator.is_main_process:
        return
    line = json.dumps(entry)
    print(line, flush=True)
    with open(os.path.join(config.out, "metrics.jsonl"), "a", encoding="utf-8") as file:
        file.write(f"{line}\n")


if __name__ == "__main__":
    main()
