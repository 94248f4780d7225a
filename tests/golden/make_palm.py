"""Writes palm.json: logits of a tiny PALM, computed by MBartForConditionalGeneration of transformers.

The mapping: no scaling of embeddings, GELU, no dropout, all norms with epsilon 1e-12, two zero rows before the positions, the type row 0
added to the positions, `encoder.layer_norm` applied twice. Parameter k in the sorted list of PALM's names has the elements (in C order)
0.3 sin(0.37 i + 1.3 k), plus 1 in the weights of a LayerNorm. So a test can make the weights without a file.

To run it (Python 3.10 or newer)::

    pip install torch==2.13.0 transformers==5.24.0
    python tests/golden/make_palm.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import MBartConfig, MBartForConditionalGeneration

H, WIDE, V, P, LAYERS, DECODER_LAYERS, HEADS = 20, 36, 51, 15, 3, 2, 4
SOURCES = ((2, 7, 50, 19, 23, 3, 0, 0, 0), (2, 11, 12, 3, 2, 31, 8, 4, 3), (2, 9, 3, 0, 0, 0, 0, 0, 0))  # 0 [PAD], 2 [CLS], 3 [SEP]
TARGETS = ((2, 19, 23, 8, 3), (2, 31, 0, 0, 0), (2, 5, 5, 44, 17))


def shapes():
    """dict of PALM's name -> shape, as SOFA's checkpoint has them (torch layout, [out, in])."""
    found = {
        "bert.embeddings.word_embeddings.weight": (V, H),
        "bert.embeddings.position_embeddings.weight": (P, H),
        "bert.embeddings.token_type_embeddings.weight": (3, H),
    }

    def dense(name, out, into):
        found[name + ".weight"], found[name + ".bias"] = (out, into), (out,)

    def norm(name):
        found[name + ".weight"] = found[name + ".bias"] = (H,)

    norm("bert.embeddings.LayerNorm")
    for layer in range(LAYERS):
        prefix = f"bert.encoder.layer.{layer}."
        norm(prefix + "attention.LayerNorm")
        dense(prefix + "attention.self.query_key_value", 3 * H, H)
        dense(prefix + "attention.output.dense", H, H)
        norm(prefix + "LayerNorm")
        dense(prefix + "intermediate.dense", WIDE, H)
        dense(prefix + "output.dense", H, WIDE)
    norm("bert.encoder.LayerNorm")
    for layer in range(DECODER_LAYERS):
        prefix = f"decoder.decoder.layer.{layer}."
        norm(prefix + "input_layernorm")
        dense(prefix + "attention.query_key_value", 3 * H, H)
        dense(prefix + "attention.dense", H, H)
        norm(prefix + "post_attention_layernorm")
        dense(prefix + "cross_attention.query", H, H)
        dense(prefix + "cross_attention.key_value", 2 * H, H)
        dense(prefix + "cross_attention.dense", H, H)
        norm(prefix + "post_cross_attention_layernorm")
        dense(prefix + "intermediate", WIDE, H)
        dense(prefix + "output", H, WIDE)
    norm("decoder.decoder.final_layernorm")
    return found


def weights():
    """dict of PALM's name -> float32 array."""
    values = {}
    for place, (name, shape) in enumerate(sorted(shapes().items())):
        value = 0.3 * np.sin(0.37 * np.arange(int(np.prod(shape))) + 1.3 * place)
        values[name] = (value + name.lower().endswith("layernorm.weight")).astype(np.float32).reshape(shape)
    return values


class Twice(torch.nn.Module):
    """A module applied twice."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(self.inner(x))


def mbart(values):
    """The MBart with PALM's weights."""
    model = MBartForConditionalGeneration(
        MBartConfig(
            vocab_size=V, d_model=H, encoder_layers=LAYERS, decoder_layers=DECODER_LAYERS, encoder_attention_heads=HEADS,
            decoder_attention_heads=HEADS, encoder_ffn_dim=WIDE, decoder_ffn_dim=WIDE, max_position_embeddings=P,
            activation_function="gelu", dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, scale_embedding=False, pad_token_id=0,
            bos_token_id=2, eos_token_id=3,
            decoder_start_token_id=2, attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    state = model.state_dict()
    tables = {
        name: values[f"bert.embeddings.{name}.weight"] for name in ("word_embeddings", "position_embeddings", "token_type_embeddings")
    }
    positions = np.concatenate([np.zeros((2, H), np.float32), tables["position_embeddings"] + tables["token_type_embeddings"][:1]])

    def put(name, value):
        assert state[name].shape == value.shape, (name, state[name].shape, value.shape)
        state[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def both(theirs, ours, rows=slice(None)):
        for kind in ("weight", "bias"):
            put(f"{theirs}.{kind}", values[f"{ours}.{kind}"][rows])

    with torch.no_grad():
        put("model.shared.weight", tables["word_embeddings"])
        put("lm_head.weight", tables["word_embeddings"])
        put("final_logits_bias", np.zeros((1, V), np.float32))
        for side in ("encoder", "decoder"):
            put(f"model.{side}.embed_tokens.weight", tables["word_embeddings"])
            put(f"model.{side}.embed_positions.weight", positions)
            both(f"model.{side}.layernorm_embedding", "bert.embeddings.LayerNorm")
        for layer in range(LAYERS):
            theirs, ours = f"model.encoder.layers.{layer}.", f"bert.encoder.layer.{layer}."
            both(theirs + "self_attn_layer_norm", ours + "attention.LayerNorm")
            for third, name in enumerate(("q_proj", "k_proj", "v_proj")):
                both(theirs + "self_attn." + name, ours + "attention.self.query_key_value", slice(third * H, (third + 1) * H))
            both(theirs + "self_attn.out_proj", ours + "attention.output.dense")
            both(theirs + "final_layer_norm", ours + "LayerNorm")
            both(theirs + "fc1", ours + "intermediate.dense")
            both(theirs + "fc2", ours + "output.dense")
        both("model.encoder.layer_norm", "bert.encoder.LayerNorm")
        for layer in range(DECODER_LAYERS):
            theirs, ours = f"model.decoder.layers.{layer}.", f"decoder.decoder.layer.{layer}."
            both(theirs + "self_attn_layer_norm", ours + "input_layernorm")
            for third, name in enumerate(("q_proj", "k_proj", "v_proj")):
                both(theirs + "self_attn." + name, ours + "attention.query_key_value", slice(third * H, (third + 1) * H))
            both(theirs + "self_attn.out_proj", ours + "attention.dense")
            both(theirs + "encoder_attn_layer_norm", ours + "post_attention_layernorm")
            both(theirs + "encoder_attn.q_proj", ours + "cross_attention.query")
            for half, name in enumerate(("k_proj", "v_proj")):
                both(theirs + "encoder_attn." + name, ours + "cross_attention.key_value", slice(half * H, (half + 1) * H))
            both(theirs + "encoder_attn.out_proj", ours + "cross_attention.dense")
            both(theirs + "final_layer_norm", ours + "post_cross_attention_layernorm")
            both(theirs + "fc1", ours + "intermediate")
            both(theirs + "fc2", ours + "output")
        both("model.decoder.layer_norm", "decoder.decoder.final_layernorm")
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-12
    return model


def main():
    sources, targets = torch.tensor(SOURCES), torch.tensor(TARGETS)
    logits = {}
    for norms in (1, 2):
        model = mbart(weights())
        if norms == 2:
            model.model.encoder.layer_norm = Twice(model.model.encoder.layer_norm)
        with torch.no_grad():
            found = model(input_ids=sources, attention_mask=(sources != 0).long(), decoder_input_ids=targets).logits
        logits[str(norms)] = [[[round(float(value), 6) for value in row] for row in rows] for rows in found]
    golden = {
        "made_with": {name: version(name) for name in ("torch", "transformers")},
        "sizes": {
            "vocab_size": V, "hidden_size": H, "intermediate_size": WIDE, "max_position_embeddings": P, "num_hidden_layers": LAYERS,
            "dec_hidden_layers": DECODER_LAYERS, "num_attention_heads": HEADS, "type_vocab_size": 3,
        },
        "sources": SOURCES,
        "targets": TARGETS,
        "logits": logits,
    }  # fmt: skip
    Path(__file__).with_name("palm.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
