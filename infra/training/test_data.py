import json

import pytest
import torch

import data
from nested_llama import IGNORED
from objectives import exit_weights


class Letters:
    """A tokenizer with one token per character and a start token."""

    eos_token_id = 2

    def __call__(self, text, add_special_tokens=True):
        tokens = [ord(letter) for letter in text]
        return type("Encoding", (), {"input_ids": [1, *tokens] if add_special_tokens else tokens})


def test_alpaca_records_learn_the_response_and_its_end():
    record = {"instruction": "Sing.", "input": "", "output": "la"}
    example = data.encode(record, Letters(), 512)
    prompt = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nSing.\n\n### Response:"
    )
    assert example.tokens == [1, *map(ord, prompt), ord("l"), ord("a"), 2]
    assert example.labels == [IGNORED] * (len(prompt) + 1) + [ord("l"), ord("a"), 2]
    assert example.targets == 3
    with_input = data.encode(record | {"input": "{now}"}, Letters(), 1024)
    assert "".join(map(chr, with_input.tokens[1:])).endswith("### Input:\n{now}\n\n### Response:la\x02")


def test_records_with_nothing_to_learn_are_left_out():
    record = {"instruction": "Sing.", "input": "", "output": "la"}
    assert data.encode(record, Letters(), 20) is None
    assert data.encode(record | {"output": " "}, Letters(), 512) is None


def test_load_holds_records_out(tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"prompt_tokens": [i], "completion_tokens": [i, 2]} for i in range(10)]))
    train, held_out = data.load(path, None, 512, 5)
    assert [example.tokens[0] for example in held_out] == [0, 5]
    assert len(train) == 8


def examples(count):
    return [data.Example([i] * (1 + i % 7), [i] * (1 + i % 7)) for i in range(count)]


def test_an_epoch_shows_every_example_once_in_another_order():
    all_steps = list(data.steps(examples(50), 4, 3, 2, 42))
    assert len(all_steps) == data.count_steps(examples(50), 4, 3, 2) == 10
    for epoch in (all_steps[:5], all_steps[5:]):
        seen = [example.tokens[0] for step in epoch for micro in step for example in micro]
        assert sorted(seen) == list(range(50))
    assert all_steps[0] != all_steps[5]
    assert all_steps == list(data.steps(examples(50), 4, 3, 2, 42))


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_processes_share_a_micro_batch(world):
    micro = examples(5)
    shares = [data.share(micro, rank, world) for rank in range(world)]
    assert all(shares)
    assert sum(example.targets for part in shares for example in part) == sum(example.targets for example in micro)


def test_collate_pads_on_the_right():
    batch = data.collate([data.Example([5, 6, 7], [IGNORED, 6, 7]), data.Example([8], [IGNORED])], "cpu")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED] * 3]
    assert all(rows.dtype == torch.int64 for rows in batch.values())


def test_weights_add_up_to_one():
    exits = [8, 16, 24, 32]
    for method in ("sft", "soft", "lite", "sortednet"):
        assert sum(exit_weights(method, exits, exits_per_step=3).values()) == pytest.approx(1)
    assert exit_weights("lite", exits) == pytest.approx({8: 0.1, 16: 0.2, 24: 0.3, 32: 0.4})
    assert exit_weights("lite", exits, weights=[1, 1, 0, 2])[32] == 0.5
    drawn = {next(iter(exit_weights("sortednet", exits, step=step))) for step in range(100)}
    assert drawn == set(exits)
    with pytest.raises(ValueError, match="none of sft"):
        exit_weights("other", exits)
