"""A LLaMA whose exits share the final norm and the head."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.masking_utils import create_causal_mask

IGNORED = -100
# Rows whose logits exist at once: 1024 rows of a 32,000-token vocabulary are 131 MB in fp32.
CHUNK_ROWS = 1024


class NestedLlama(nn.Module):
    """Wraps a LlamaForCausalLM; one forward pass gives the loss at several depths.

    It is a module of its own so that sharding sees norm, head and embedding as the root's parameters: they stay gathered
    while all exits use them, instead of being gathered and reduced once per exit.
    """

    _no_split_modules = ["LlamaDecoderLayer"]

    def __init__(self, language_model):
        super().__init__()
        self.language_model = language_model

    def tie_weights(self):
        self.language_model.tie_weights()

    def forward(self, input_ids, attention_mask, labels, weights, scale):
        """Sums cross-entropies over labelled tokens.

        input_ids, attention_mask, labels: int64 [batch, length], padded on the right; label t is predicted at t - 1.
        weights: weight of each depth; layers above the deepest one do not run.
        scale: factor of the loss, such as 1 / number of labelled tokens.
        Returns the weighted, scaled loss and, by depth, the unscaled sums in nats without gradient.
        """
        targets = labels[:, 1:]
        learnt = targets != IGNORED
        targets = targets[learnt]
        loss = 0.0
        sums = {}
        for depth, hidden in self._hidden_states(input_ids, attention_mask, max(weights)):
            if depth not in weights:
                continue
            exit_sum = self._loss(hidden[:, :-1][learnt], targets)
            loss = loss + exit_sum * (weights[depth] * scale)
            sums[depth] = exit_sum.detach()
        return loss, sums

    def _hidden_states(self, input_ids, attention_mask, deepest):
        """The residual stream after each of the first `deepest` layers, with its depth."""
        trunk = self.language_model.model
        hidden = trunk.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        mask = create_causal_mask(
            config=trunk.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=positions,
        )
        rotation = trunk.rotary_emb(hidden, position_ids=positions)
        for depth, layer in enumerate(trunk.layers[:deepest], start=1):
            hidden = layer(
                hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotation, use_cache=False
            )
            yield depth, hidden

    def _loss(self, rows, targets):
        """Sum of cross-entropies; logits are computed again for the backward pass instead of being kept."""
        total = 0.0
        for chunk, wanted in zip(rows.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True):
            total = total + checkpoint(self._chunk_loss, chunk, wanted, use_reentrant=False)
        return total

    def _chunk_loss(self, rows, targets):
        logits = self.language_model.lm_head(self.language_model.model.norm(rows))
        return F.cross_entropy(logits.float(), targets, reduction="sum")
