"""The encoders of `Variant` in NumPy, float64, written from the formulas. One text at a time, without padding."""

import math

import numpy as np

ERF = np.vectorize(math.erf)


def norm(values, name, x, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    return scaled * values[name + "-gamma"] + values[name + "-beta"]


def softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sinusoids(length, width):
    table = np.zeros((length, width))
    for position in range(length):
        for column in range(width):
            angle = position / 10000 ** (2 * (column // 2) / width)
            table[position, column] = math.cos(angle) if column % 2 else math.sin(angle)
    return table


def embed(values, variant, ids, types):
    words, length, width = values["bert-embeddings-word_embeddings"][ids], len(ids), values["bert-embeddings-word_embeddings"].shape[1]
    table, kinds = values.get("bert-embeddings-position_embeddings"), values["bert-embeddings-token_type_embeddings"]
    return {
        "learned": lambda: words + kinds[types] + table[:length],
        "learned_with_bias": lambda: words + kinds[0] + table[:length],
        "sinusoidal": lambda: words * math.sqrt(width) + kinds[types] + sinusoids(length, width),
        "none": lambda: words + kinds[types],
    }[variant.positions]()


def attend(values, config, layer, x):
    """The output of the attention of a layer, after its output projection."""
    variant, prefix, length, size = config.variant, f"bert-encoder-layer_{layer}-", len(x), config.head_size

    def dense(x, name):
        return x @ values[prefix + name + "-weight"] + values[prefix + name + "-bias"]

    query, key, value = (dense(x, "attention-self-" + name) for name in ("query", "key", "value"))
    context = np.zeros_like(x)
    for head in range(config.num_attention_heads):
        part = slice(head * size, (head + 1) * size)
        q, k, v = query[:, part], key[:, part], value[:, part]
        scores, added = np.zeros((length, length)), np.zeros((length, length, size))
        for i in range(length):
            for j in range(length):
                scores[i, j] = q[i] @ k[j]
                if variant.relative_distances:
                    farthest = variant.relative_distances[layer]
                    place = min(max(j - i + farthest, 0), 2 * farthest)
                    scores[i, j] += q[i] @ values[prefix + "attention-self-relative_keys"][place]
                    if variant.relative_values:
                        added[i, j] = values[prefix + "attention-self-relative_values"][place]
                    if variant.windowed and abs(i - j) > farthest:
                        scores[i, j] = -np.inf
        probs = softmax(scores / math.sqrt(size))
        context[:, part] = probs @ v + (probs[:, :, None] * added).sum(axis=1)
    return dense(context, "attention-output-dense")


def feed_forward(values, layer, x):
    prefix = f"bert-encoder-layer_{layer}-"
    inner = x @ values[prefix + "intermediate-dense-weight"] + values[prefix + "intermediate-dense-bias"]
    inner = inner * 0.5 * (1 + ERF(inner / math.sqrt(2)))
    return inner @ values[prefix + "output-dense-weight"] + values[prefix + "output-dense-bias"]


def encode(values, config, ids, types):
    """The states of the last layer of one text, [S, H]."""
    eps, variant = config.layer_norm_eps, config.variant
    x = embed(values, variant, ids, types)
    if variant.embeddings_norm:
        x = norm(values, "bert-embeddings-LayerNorm", x, eps)
    for layer in range(config.num_hidden_layers):
        first, second = (f"bert-encoder-layer_{layer}-{part}-LayerNorm" for part in ("attention-output", "output"))
        if variant.layer_norms == "after":
            x = norm(values, first, x + attend(values, config, layer, x), eps)
            x = norm(values, second, x + feed_forward(values, layer, x), eps)
        else:
            x = x + attend(values, config, layer, norm(values, first, x, eps))
            x = x + feed_forward(values, layer, norm(values, second, x, eps))
    return x if variant.layer_norms == "after" else norm(values, "bert-encoder-LayerNorm", x, eps)


def encode_normalising_residuals(values, config, ids, types):
    """The states of MEAD's default stack, which normalises x before the residual branches off, with the norms named by its order: `first`
    and `second` of each layer, and `last`."""
    eps = config.layer_norm_eps
    x = embed(values, config.variant, ids, types)
    for layer in range(config.num_hidden_layers):
        x = norm(values, f"first_{layer}", x, eps)
        x = x + attend(values, config, layer, x)
        x = norm(values, f"second_{layer}", x, eps)
        x = x + feed_forward(values, layer, x)
    return norm(values, "last", x, eps)


def text_vector(values, config, state):
    """The vector of one text of n tokens, from its states [n, H]."""
    root = math.sqrt(len(state))
    if config.pooling == "cls":
        return np.tanh(state[0] @ values["bert-pooler-dense-weight"] + values["bert-pooler-dense-bias"])
    simple = {"raw_cls": state[0], "mean": state.mean(axis=0), "max": state.max(axis=0), "sqrt_length": state.sum(axis=0) * root}
    if config.pooling in simple:
        return simple[config.pooling]
    vectors = []
    for head in range(config.pooling_heads):
        query, key = (state @ values[f"bert-pooler-head_{head}-{part}-weight"] + values[f"bert-pooler-head_{head}-{part}-bias"]
                      for part in ("query", "key"))  # fmt: skip
        attended = [softmax(key @ q) @ state for q in query]
        vectors.append(np.sum(attended, axis=0) * root)
    return np.concatenate(vectors)
