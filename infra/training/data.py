"""Records to token batches, the same way as `fathom train` does it."""

import json
import random
from dataclasses import dataclass

import torch

from nested_llama import IGNORED

# https://github.com/tatsu-lab/stanford_alpaca/blob/main/train.py
PROMPT_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)


@dataclass
class Example:
    """Tokens and, for each, the token itself where it belongs to the response, else IGNORED."""

    tokens: list
    labels: list

    @property
    def targets(self):
        return sum(label != IGNORED for label in self.labels[1:])


def encode(record, tokenizer, max_length):
    """An Alpaca record, or {prompt_tokens, completion_tokens}, cut to `max_length`; None where nothing is left to learn."""
    if "prompt_tokens" in record:
        prompt, completion = record["prompt_tokens"], record["completion_tokens"]
    else:
        if not record["instruction"].strip() or not record["output"].strip():
            return None
        template = PROMPT_WITH_INPUT if record.get("input") else PROMPT_WITHOUT_INPUT
        prompt = tokenizer(template.format_map(record)).input_ids
        completion = tokenizer(record["output"], add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
    example = Example(
        (prompt + completion)[:max_length], ([IGNORED] * len(prompt) + list(completion))[:max_length]
    )
    return example if example.targets > 0 else None


def load(path, tokenizer, max_length, holdout_every):
    """Reads a JSON array or JSON lines. Returns the examples to train on and those held out: every `holdout_every`-th."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    records = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    train, held_out = [], []
    for index, record in enumerate(records):
        example = encode(record, tokenizer, max_length)
        if example is not None:
            (held_out if holdout_every and index % holdout_every == 0 else train).append(example)
    if not train:
        raise SystemExit(f"{path}: there is nothing to train on")
    return train, held_out


def steps(examples, batch, accumulation, epochs, seed):
    """Yields, for every optimiser step, its micro-batches as lists of examples.

    Each epoch is shuffled anew. Within a step, neighbours in length share a micro-batch: that saves padding and changes
    nothing else, because the loss of a step is the mean over its tokens.
    """
    size = batch * accumulation
    for epoch in range(epochs):
        order = random.Random(f"{seed}/{epoch}").sample(examples, len(examples))
        for start in range(0, len(order), size):
            chosen = sorted(order[start : start + size], key=lambda example: len(example.tokens))
            yield [chosen[i : i + batch] for i in range(0, len(chosen), batch)]


def count_steps(examples, batch, accumulation, epochs):
    return -(-len(examples) // (batch * accumulation)) * epochs


def collate(examples, device):
    """Pads on the right. Returns input_ids, attention_mask and labels, int64 [rows, longest]."""
    longest = max(len(example.tokens) for example in examples)

    def padded(values, fill):
        rows = [row + [fill] * (longest - len(row)) for row in values]
        return torch.tensor(rows, dtype=torch.int64, device=device)

    return {
        "input_ids": padded([example.tokens for example in examples], 0),
        "attention_mask": padded([[1] * len(example.tokens) for example in examples], 0),
        "labels": padded([example.labels for example in examples], IGNORED),
    }


def share(micro_batch, rank, world):
    """The part of a micro-batch that a process runs. One that gets none runs an example without labels: it must take
    part in the others' communication."""
    return micro_batch[rank::world] or [Example(micro_batch[0].tokens, [IGNORED] * len(micro_batch[0].labels))]
