"""Losses, gradients and AdamW steps equal the reference values that `fathom train` is tested against."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from nested_llama import NestedLlama
from objectives import exit_weights

FIXTURES = Path(__file__).parents[2] / "test" / "fixtures" / "tiny-llama"


@pytest.fixture(params=["tied", "untied"])
def folder(request):
    return FIXTURES / request.param


@pytest.fixture
def reference(folder):
    return json.loads((folder / "reference.json").read_text())


@pytest.fixture
def model(folder):
    return NestedLlama(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


@pytest.fixture
def batch(reference):
    return {name: torch.tensor(rows) for name, rows in reference["batch"].items()}


def run(model, batch, weights):
    """Backward pass of the mean loss; returns it, the loss by depth and the gradients by Hugging Face name."""
    targets = int((batch["labels"][:, 1:] != -100).sum())
    model.zero_grad()
    loss, sums = model(**batch, weights=weights, scale=1 / targets)
    loss.backward()
    gradients = {
        name.removeprefix("language_model."): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return loss.item(), {depth: value.item() / targets for depth, value in sums.items()}, gradients


def total_norm(gradients):
    return torch.stack([gradient.norm() for gradient in gradients.values()]).norm().item()


def test_loss_per_exit(model, batch, reference):
    _, losses, _ = run(model, batch, exit_weights("soft", reference["exits"]))
    assert list(losses) == reference["exits"]
    assert list(losses.values()) == pytest.approx(reference["loss_per_exit"], rel=1e-5)


@pytest.mark.parametrize("method", ["sft", "soft", "lite", "sorted_sample"])
def test_method(model, batch, reference, method):
    exits = reference["exits"]
    weights = {exits[1]: 1.0} if method == "sorted_sample" else exit_weights(method, exits)
    loss, _, gradients = run(model, batch, weights)
    expected = reference[method]
    assert loss == pytest.approx(expected["loss"], rel=1e-4)
    assert total_norm(gradients) == pytest.approx(expected["grad_norm"], rel=1e-4)
    norms = {name: gradient.norm().item() for name, gradient in gradients.items()}
    assert norms == pytest.approx(expected["grad_norms"], rel=1e-3)


def test_soft_gradients_elementwise(model, batch, reference, folder):
    _, _, gradients = run(model, batch, exit_weights("soft", reference["exits"]))
    expected = load_file(folder / "soft-gradients.safetensors")
    assert gradients.keys() == expected.keys()
    for name, values in expected.items():
        assert (gradients[name] - values).abs().max() <= 1e-4 * values.abs().max(), name


def test_five_adamw_steps(model, batch, reference):
    settings = reference["soft_adamw"]
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings["lr"],
        betas=settings["betas"],
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
    )
    losses = []
    for _ in settings["losses"]:
        loss, _, _ = run(model, batch, exit_weights("soft", reference["exits"]))
        losses.append(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
        optimizer.step()
    assert losses == pytest.approx(settings["losses"], rel=1e-3)


def test_chunks_do_not_change_the_loss(model, batch, reference, monkeypatch):
    weights = exit_weights("lite", reference["exits"])
    whole, _, expected = run(model, batch, weights)
    monkeypatch.setattr("nested_llama.CHUNK_ROWS", 3)
    chunked, _, gradients = run(model, batch, weights)
    assert chunked == pytest.approx(whole, rel=1e-6)
    assert total_norm(gradients) == pytest.approx(total_norm(expected), rel=1e-5)
