r"""Writes the golden files of this folder: numbers from implementations that share no code with this project.

The tests run where only numpy is installed, so the references are computed once, here, and stored without pickle:

* ``tiny_bert.npz``: outputs and gradients of a tiny random Hugging Face ``BertForSequenceClassification``, and three
  steps of ``torch.optim.AdamW`` with clipping (``numpy.load`` reads it with ``allow_pickle=False``);
* ``wordpiece.json``: token ids from Hugging Face's pure-Python BERT tokenizer, compared while it is written with
  Google's published ``tokenization.py`` (from the package bert-tensorflow) and with Hugging Face's Rust tokenizer.

To run it (Python 3.11; no GPU, no downloads besides the packages, a few seconds)::

    python -m venv /tmp/golden && . /tmp/golden/bin/activate
    pip install torch==2.13.0 transformers==5.23.0 six absl-py && pip install --no-deps bert-tensorflow==1.0.4
    python tests/golden/make_golden.py

The versions that made a file are stored in it, as JSON under ``versions``. A second run with the same versions gives
the same bytes.
"""

import json
import platform
import sys
import tempfile
import types
import unicodedata
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

FOLDER = Path(__file__).resolve().parent

# ------------------------------------------------------------------------------------------------------- tiny_bert.npz

SEED = 20240611

# Unrelated sizes (intermediate is not 4 x hidden, head size is not a power of two, the sequence is shorter than
# max_position_embeddings), so that a swapped dimension or an assumed ratio cannot pass.
BERT_CONFIG = {
    "vocab_size": 99,
    "hidden_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 52,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 17,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "num_labels": 3,
}

REAL_LENGTHS = (13, 7, 2)
# Id 0 stands at real positions of row 0 and nonzero ids at masked positions of row 1: a model that derives the mask
# from the ids instead of reading attention_mask gets other numbers.
INPUT_IDS = (
    (2, 98, 0, 17, 45, 3, 61, 98, 5, 0, 33, 7, 3),
    (2, 11, 23, 3, 88, 41, 3, 56, 98, 1, 12, 70, 4),
    (2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
)
TOKEN_TYPE_IDS = (
    (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1),
    (0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0, 1, 0),
    (0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
)
LABELS = (2, 0, 1)
EXAMPLE_WEIGHTS = (0.5, 0.0, 1.75)
WORD_EMBEDDINGS = "bert.embeddings.word_embeddings.weight"


def json_array(value):
    """Returns `value` as JSON in a numpy unicode array: text that loads without pickle."""
    return np.array(json.dumps(value, sort_keys=True))


def versions(*packages):
    """Returns the versions of Python, of its Unicode tables and of `packages`, by name."""
    found = {name: version(name) for name in packages}
    return {"python": platform.python_version(), "unicode": unicodedata.unidata_version, **found}


def random_weights(model):
    """Returns a random float32 array for each entry of `model`'s state dict.

    Biases, gamma and beta are random too: with Hugging Face's initial 0 and 1 a forgotten or misplaced one would not
    show. numpy draws them because its seeded stream does not depend on the version of torch.
    """
    generator = np.random.default_rng(SEED)
    weights = {}
    for name, tensor in model.state_dict().items():
        center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        weights[name] = (center + 0.2 * generator.standard_normal(tuple(tensor.shape))).astype(np.float32)
    return weights


def run_bert(weights, dtype, padding_idx):
    """Runs the tiny model forward and backward in eval mode (no dropout) and returns what it computed.

    Args:
        weights: float32 array by state-dict name.
        dtype: the torch type to compute in.
        padding_idx: row of the word embeddings whose gradient torch drops, or None to drop none.

    Returns:
        dict of numpy arrays of `dtype`, under the keys `output/...` and `grad/...`.
    """
    config = transformers.BertConfig(**BERT_CONFIG, attn_implementation="eager")
    model = transformers.BertForSequenceClassification(config).eval().to(dtype)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    model.bert.embeddings.word_embeddings.padding_idx = padding_idx

    mask = torch.arange(len(INPUT_IDS[0]))[None, :] < torch.tensor(REAL_LENGTHS)[:, None]
    encoded = model.bert(
        input_ids=torch.tensor(INPUT_IDS),
        attention_mask=mask.long(),
        token_type_ids=torch.tensor(TOKEN_TYPE_IDS),
        output_hidden_states=True,
        output_attentions=True,
    )
    logits = model.classifier(model.dropout(encoded.pooler_output))
    cross_entropy = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS), reduction="none")
    loss = (torch.tensor(EXAMPLE_WEIGHTS, dtype=dtype) * cross_entropy).mean()
    loss.backward()

    embeddings, *hidden_states = encoded.hidden_states
    results = {
        "output/embeddings": embeddings,
        "output/pooled": encoded.pooler_output,
        "output/logits": logits,
        "output/cross_entropy": cross_entropy,
        "output/loss": loss,
    }
    results.update({f"output/hidden_{i}": hidden for i, hidden in enumerate(hidden_states)})
    results.update({f"output/attention_probs_{i}": probs for i, probs in enumerate(encoded.attentions)})
    results.update({f"grad/{name}": parameter.grad for name, parameter in model.named_parameters()})
    return {key: tensor.detach().numpy() for key, tensor in results.items()}


def bert_arrays():
    """Returns the part of tiny_bert.npz about the model.

    The reference is computed in float64 from the float32 weights and rounded at the end, so that a test's tolerance
    only has to allow for the error of the implementation under test; `float32_deviation` holds the largest difference
    that the same model in float32 has, which says how tight that tolerance may be.
    """
    config = transformers.BertConfig(**BERT_CONFIG)
    weights = random_weights(transformers.BertForSequenceClassification(config))
    reference = run_bert(weights, torch.float64, padding_idx=0)
    in_float32 = run_bert(weights, torch.float32, padding_idx=0)
    # Hugging Face drops the gradient of the padding id's row even where that id is at a real position; a model
    # without such a rule (Google's, for one) has to compare its word embeddings with this array instead.
    complete_gradient = run_bert(weights, torch.float64, padding_idx=None)[f"grad/{WORD_EMBEDDINGS}"]
    deviation = {
        group: max(float(np.abs(reference[key] - in_float32[key]).max()) for key in reference if key.startswith(group))
        for group in ("output/", "grad/")
    }

    positions = np.arange(len(INPUT_IDS[0]))
    arrays = {f"weight/{name}": array for name, array in weights.items()}
    arrays.update({key: array.astype(np.float32) for key, array in reference.items()})
    arrays.update(
        {
            "config": json_array(BERT_CONFIG),
            "float32_deviation": json_array(deviation),
            "input/input_ids": np.array(INPUT_IDS, np.int32),
            "input/attention_mask": (positions[None, :] < np.array(REAL_LENGTHS)[:, None]).astype(np.int32),
            "input/token_type_ids": np.array(TOKEN_TYPE_IDS, np.int32),
            "train/labels": np.array(LABELS, np.int32),
            "train/weights": np.array(EXAMPLE_WEIGHTS, np.float32),
            f"grad_without_padding_idx/{WORD_EMBEDDINGS}": complete_gradient.astype(np.float32),
        }
    )
    return arrays


def adamw_arrays():
    """Returns the part of tiny_bert.npz about the optimizer: three steps of clipped AdamW on two parameters.

    The gradients' scale changes from step to step, because Adam hardly notices a constant factor: only so does the
    result show whether, and over which parameters, the norm was clipped. Two gamma gradients are tiny and one is zero,
    where the place of eps matters. The first learning rate is 0, as in a warm-up: the step leaves the parameters alone
    but counts for the moments and for bias correction. Computed in float64 and rounded.
    """
    settings = {
        "betas": [0.9, 0.999],
        "eps": 1e-6,
        "weight_decay": {"gamma": 0.0, "matrix": 0.01},
        "clip_global_norm": 1.0,
        "clip_rule": "gradient * min(1, 1.0 / (norm + 1e-6)), norm over gamma and matrix together",
        "update_rule": "p -= lr * weight_decay * p; p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)",
    }
    learning_rates = [0.0, 0.25 * 1e-2, 0.5 * 1e-2]
    scales = np.array([6.0, 40.0, 2.0])

    generator = np.random.default_rng(SEED + 1)
    initial = {
        "gamma": (1.0 + 0.2 * generator.standard_normal(7)).astype(np.float32),
        "matrix": (0.5 * generator.standard_normal((5, 3))).astype(np.float32),
    }
    gradients = {
        "gamma": (scales[:, None] * generator.standard_normal((3, 7))).astype(np.float32),
        "matrix": (scales[:, None, None] * generator.standard_normal((3, 5, 3))).astype(np.float32),
    }
    gradients["gamma"][:, 0] = 0.0
    gradients["gamma"][:, 1:3] *= 1e-5

    parameters = {name: torch.nn.Parameter(torch.from_numpy(array).double()) for name, array in initial.items()}
    optimizer = torch.optim.AdamW(
        [{"params": [parameter], "weight_decay": settings["weight_decay"][name]} for name, parameter in parameters.items()],
        lr=0.0,
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
    )
    norms = []
    after_step = {name: [] for name in parameters}
    for step, learning_rate in enumerate(learning_rates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(gradients[name][step]).double()
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), settings["clip_global_norm"])
        if not norm > settings["clip_global_norm"]:
            raise AssertionError(f"clipping is meant to bite, but at step {step} the norm is only {norm}")
        norms.append(float(norm))
        optimizer.step()
        for name, parameter in parameters.items():
            after_step[name].append(parameter.detach().numpy().copy())

    arrays = {
        "adamw/config": json_array(settings),
        "adamw/lr": np.array(learning_rates, np.float64),
        "adamw/gradient_norm": np.array(norms, np.float64),
    }
    for name in parameters:
        arrays[f"adamw/initial/{name}"] = initial[name]
        arrays[f"adamw/gradient/{name}"] = gradients[name]
        arrays[f"adamw/after_step/{name}"] = np.stack(after_step[name]).astype(np.float32)
    return arrays


def write_tiny_bert():
    """Writes tiny_bert.npz."""
    torch.set_num_threads(1)
    arrays = {**bert_arrays(), **adamw_arrays(), "versions": json_array(versions("numpy", "torch", "transformers"))}
    np.savez_compressed(FOLDER / "tiny_bert.npz", **arrays)


# ------------------------------------------------------------------------------------------------------ wordpiece.json

# "mask" and "MASK" are words of the vocabulary and "[" and "]" are in it too, so that splitting a "[MASK]" inside the
# text gives other ids than keeping it or than [UNK]. "##中" must never match: every CJK character is a word of its own.
# The second spelling of 한국 is the decomposed one, which lower-casing produces.
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *".,!?-'\"()[]/:;$#@&%`…—“”。，",
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "is",
    "hello",
    "world",
    "naive",
    "cafe",
    "naïve",
    "café",
    "paris",
    "Hello",
    "World",
    "Paris",
    "The",
    "HELLO",
    "new",
    "want",
    "un",
    "low",
    "run",
    "mask",
    "sep",
    "MASK",
    "SEP",
    "CLS",
    "##aff",
    "##able",
    "##want",
    "##ed",
    "##er",
    "##est",
    "##s",
    "##ing",
    "##ning",
    "##lo",
    "##world",
    "b",
    "c",
    "x",
    "##a",
    "##b",
    "##c",
    "##x",
    "A",
    "##B",
    "h",
    "##el",
    "1",
    "5",
    "00",
    "##0",
    "##5",
    "€",
    "straße",
    "##ß",
    "istanbul",
    "σας",
    "σασ",
    "ΣΑΣ",
    "中",
    "国",
    "人",
    "日",
    "本",
    "語",
    "東",
    "豈",
    "\U00020000",
    "##中",
    "の",
    "##の",
    "한국",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8",
    "😀",
    "##😀",
    "❤",
    "##\ufe0f",
    "👨",
    "##👩",
    "##👧",
    "\ue000",
    "##\ue000",
]

# (name, text_a, text_b, max_length); each is tokenized with do_lower_case true and false.
LONG_TEXT = "The unaffable world wanted to run, and the cafe is low."
CASES = [
    ("plain", "Hello, world! The cafe.", None, None),
    ("case", "HELLO World hELLO the The", None, None),
    ("accents", "Naïve café in Paris, naïve NAÏVE CAFÉ", None, None),
    ("dotted capital i", "İstanbul istanbul", None, None),
    ("sharp s", "Straße straße STRASSE", None, None),
    ("final sigma", "ΣΑΣ σας", None, None),
    ("word pieces", "unaffable unwanted running lowest runs", None, None),
    ("unknown words", "hello zzz qqq world", None, None),
    ("unknown tail makes the whole word unknown", "unaffablez low", None, None),
    ("word of 100 characters", "hello " + "ab" * 50 + " world", None, None),
    ("word of 201 characters", "hello " + "ab" * 100 + "a world", None, None),
    ("cjk", "中国人 and 日本語 the world", None, None),
    ("cjk inside latin", "hello中国world東x", None, None),
    ("cjk extension b", "\U00020000x\U00020000中", None, None),
    ("cjk punctuation", "中国，日本。", None, None),
    ("fullwidth", "ａ，中", None, None),
    ("kana is not split", "日本の のの", None, None),
    ("hangul", "한국 world", None, None),
    ("nul, 0x1a, u+fffd inside words", "he\x00llo w\x1aor\ufffdld", None, None),
    ("nul, 0x1a, u+fffd alone", "\x00 hello \x1a world \ufffd", None, None),
    ("vertical tab and form feed join", "hel\x0blo run\x0cs", None, None),
    ("delete and next line", "hel\x7flo wor\x85ld", None, None),
    ("format characters", "hel\u200blo wor\u00adld \ufeffnew", None, None),
    ("tab, newlines, nbsp", "\thello\u00a0world\r\nnew\nlow", None, None),
    ("unicode spaces", "hello\u3000world\u2003new\u202flow", None, None),
    ("line and paragraph separator", "hello\u2028world\u2029new", None, None),
    ("punctuation runs", "hello...!?--(world)''\"\"", None, None),
    ("ascii symbols", "$5.00 & 10% #1 @a/b:c;x `a` ^~|+=<>{}\\*_", None, None),
    ("unicode punctuation", "“hello”—world… ‘a’ ¿b?", None, None),
    ("currency sign is not punctuation", "€5 €", None, None),
    ("emoji", "hello 😀 world 😀😀 🦄", None, None),
    ("variation selector", "❤\ufe0f hello", None, None),
    ("joined emoji", "👨\u200d👩\u200d👧 new", None, None),
    ("apostrophe", "Paris's cafe isn't low", None, None),
    ("empty", "", None, None),
    ("only spaces", " \t\n ", None, None),
    ("only removed characters", "\x00\x1a\ufffd", None, None),
    ("pair", "Hello world", "The new cafe, Paris!", None),
    ("pair with empty first", "", "hello world", None),
    ("pair of the same text", "running", "running", None),
    ("length above need", "hello world", None, 64),
    ("length just enough", "hello world", None, 4),
    ("single to 3", "hello world", None, 3),
    ("single to 2", "hello world", None, 2),
    ("single cut inside a word", LONG_TEXT, None, 5),
    ("single to 10", LONG_TEXT, None, 10),
    ("empty to 2", "", None, 2),
    ("pair, length above need", "hello world", "new cafe", 64),
    ("pair, length just enough", "hello world", "new cafe", 7),
    ("pair, first longer", LONG_TEXT, "hello world", 12),
    ("pair, first longer, then both", LONG_TEXT, "hello world new cafe", 9),
    ("pair, second longer", "hello world", LONG_TEXT, 12),
    ("pair, second longer, then both", "hello world new cafe", LONG_TEXT, 8),
    ("pair, equal, cut 1", "a b c x", "the of to and", 10),
    ("pair, equal, cut 2", "a b c x", "the of to and", 9),
    ("pair, equal, cut 3", "a b c x", "the of to and", 8),
    ("pair, cut 3, first longer by 1", "a b c x a", "the of to and", 9),
    ("pair, cut 3, second longer by 1", "a b c x", "the of to and in", 9),
    ("pair to 5", "a b c x", "the of to and", 5),
]

SPECIAL_CASES = [
    ("mask between spaces", "hello [MASK] world", None, None),
    ("mask inside a word", "hello[MASK]world", None, None),
    ("all five", "[CLS] a [SEP] b [PAD] [UNK] [MASK]", None, None),
    ("separator before punctuation", "the [SEP], new", None, None),
    ("alone", "[SEP]", None, None),
    ("lower case", "a [mask] b[sep]", None, None),
    ("spaced out", "[ MASK ]", None, None),
    ("in a pair", "a [SEP] b", "[CLS] c", None),
]

# (name, text_a, text_b, max_length, do_lower_case, why Hugging Face and Google's code disagree)
DIFFERING_CASES = [
    (
        "word of 101 characters",
        "hello " + "ab" * 50 + "a world",
        None,
        None,
        True,
        "longest word that is looked up: Hugging Face 100 characters, Google 200",
    ),
    (
        "word of 200 characters",
        "hello " + "ab" * 100 + " world",
        None,
        None,
        True,
        "longest word that is looked up: Hugging Face 100 characters, Google 200",
    ),
    ("decomposed accents, cased", "nai\u0308ve cafe\u0301", None, None, False, "Hugging Face composes the text (NFC), Google leaves it"),
    ("compatibility ideograph, cased", "\uf900", None, None, False, "Hugging Face composes the text (NFC), Google leaves it"),
    ("private-use character", "hello \ue000 a\ue000", None, None, True, "Hugging Face removes every category C*, Google only Cc and Cf"),
    (
        "pair with empty second",
        "hello world",
        "",
        None,
        True,
        "for a text_b without tokens Hugging Face adds the second [SEP], Google does not",
    ),
    ("pair to 4", "a b c x", "the of to and", 4, True, "for a text_b cut to no tokens Hugging Face adds the second [SEP], Google does not"),
    ("pair to 3", "a b c x", "the of to and", 3, True, "for a text_b cut to no tokens Hugging Face adds the second [SEP], Google does not"),
]

# Decomposed spellings on which the two agree with do_lower_case true only (see DIFFERING_CASES for false).
LOWER_CASES = [
    ("decomposed accents", "nai\u0308ve cafe\u0301", None, None),
    ("compatibility ideograph", "\uf900", None, None),
]


def import_google_tokenization():
    """Returns Google's published module `tokenization`.

    It imports TensorFlow, but only to open files, which is not done here: empty modules stand in for it.
    """
    for name in ("tensorflow", "tensorflow.compat", "tensorflow.compat.v1"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from absl import flags
    from bert import tokenization

    flags.FLAGS.mark_as_parsed()
    return tokenization


class GoogleEncoder:
    """Google's `FullTokenizer` on a vocabulary in memory, followed by run_classifier.py's way to join and truncate."""

    def __init__(self, tokenization, do_lower_case):
        self.ids = {piece: i for i, piece in enumerate(VOCABULARY)}
        self.basic = tokenization.BasicTokenizer(do_lower_case=do_lower_case)
        self.wordpiece = tokenization.WordpieceTokenizer(vocab=self.ids)

    def tokenize(self, text):
        """Returns the ids of `text`."""
        pieces = [piece for word in self.basic.tokenize(text) for piece in self.wordpiece.tokenize(word)]
        return [self.ids[piece] for piece in pieces]

    def encode(self, text_a, text_b, max_length):
        """Returns the pair (input_ids, token_type_ids), unpadded."""
        first = self.tokenize(text_a)
        second = self.tokenize(text_b) if text_b else []
        if max_length is not None:
            room = max_length - 3 if second else max_length - 2
            while len(first) + len(second) > room:
                (first if len(first) > len(second) else second).pop()
        cls, sep = self.ids["[CLS]"], self.ids["[SEP]"]
        left = [cls, *first, sep]
        right = [*second, sep] if second else []
        return left + right, [0] * len(left) + [1] * len(right)


class HuggingFaceEncoder:
    """A Hugging Face tokenizer with `GoogleEncoder`'s `encode`."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def encode(self, text_a, text_b, max_length):
        """Returns the pair (input_ids, token_type_ids), unpadded; pairs are cut longest first."""
        truncation = "do_not_truncate" if max_length is None else "longest_first"
        encoding = self.tokenizer(text_a, text_b, max_length=max_length, truncation=truncation, return_token_type_ids=True)
        return encoding["input_ids"], encoding["token_type_ids"]


def make_encoders(do_lower_case):
    """Returns the three encoders by name: "slow" (the reference), "fast" (Rust) and "google"."""
    with tempfile.TemporaryDirectory() as folder:
        vocab_file = Path(folder) / "vocab.txt"
        vocab_file.write_text("".join(piece + "\n" for piece in VOCABULARY), encoding="utf-8")
        slow = BertTokenizerLegacy(str(vocab_file), do_lower_case=do_lower_case)
    ids = {piece: i for i, piece in enumerate(VOCABULARY)}
    fast = transformers.BertTokenizer(vocab=ids, do_lower_case=do_lower_case)
    return {
        "slow": HuggingFaceEncoder(slow),
        "fast": HuggingFaceEncoder(fast),
        "google": GoogleEncoder(import_google_tokenization(), do_lower_case),
    }


def encode_case(encoders, name, text_a, text_b, max_length, do_lower_case):
    """Encodes one case with all encoders.

    Returns:
        (the case as stored, with the slow tokenizer's ids; google's (input_ids, token_type_ids); the fast one's).
    """
    encoded = {key: encoder.encode(text_a, text_b, max_length) for key, encoder in encoders[do_lower_case].items()}
    input_ids, token_type_ids = encoded["slow"]
    case = {
        "name": name,
        "text_a": text_a,
        "text_b": text_b,
        "max_length": max_length,
        "do_lower_case": do_lower_case,
        "input_ids": input_ids,
        "token_type_ids": token_type_ids,
    }
    return case, encoded["google"], encoded["fast"]


def require(condition, case, message):
    """Raises AssertionError about `case` unless `condition` holds."""
    if not condition:
        raise AssertionError(f"case {case['name']!r}, do_lower_case {case['do_lower_case']}: {message}")


def wordpiece_golden():
    """Returns the content of wordpiece.json; fails where the slow tokenizer and Google's code disagree unannounced."""
    if len(set(VOCABULARY)) != len(VOCABULARY):
        raise AssertionError("the vocabulary holds a piece twice")
    encoders = {do_lower_case: make_encoders(do_lower_case) for do_lower_case in (True, False)}
    everywhere = [(*case, do_lower_case) for case in CASES for do_lower_case in (True, False)]
    lists = {"cases": [], "special_in_text": [], "differs_from_google": []}
    fast_differs = []

    for arguments in everywhere + [(*case, True) for case in LOWER_CASES]:
        case, google, fast = encode_case(encoders, *arguments)
        plain = (case["input_ids"], case["token_type_ids"])
        require(plain == google, case, f"Hugging Face gives {plain}, Google {google}")
        lists["cases"].append(case)
        if plain != fast:
            fast_differs.append({"name": case["name"], "do_lower_case": case["do_lower_case"], "input_ids": fast[0]})

    for arguments in [(*case, do_lower_case) for case in SPECIAL_CASES for do_lower_case in (True, False)]:
        case, google, _ = encode_case(encoders, *arguments)
        lists["special_in_text"].append({**case, "google_input_ids": google[0], "google_token_type_ids": google[1]})

    for *arguments, reason in DIFFERING_CASES:
        case, google, _ = encode_case(encoders, *arguments)
        require((case["input_ids"], case["token_type_ids"]) != google, case, "no difference from Google's code")
        lists["differs_from_google"].append({**case, "google_input_ids": google[0], "google_token_type_ids": google[1], "reason": reason})

    notes = {
        "reference": "input_ids and token_type_ids: transformers' pure-Python BertTokenizerLegacy; google_*: "
        "tokenization.py of bert-tensorflow, with the truncation and joining of its run_classifier.py",
        "cases": "Hugging Face and Google agree on every one; pairs are truncated longest first, a tie cuts text_b",
        "special_in_text": "Hugging Face keeps a special token written in the text as that token (exact spelling "
        "only, even inside a word); Google's code splits it like any other text",
        "differs_from_google": "cases outside what the two agree on, with the reason",
        "fast_differs": "cases on which transformers' Rust tokenizer gives other input_ids than the reference",
    }
    return {
        "versions": versions("transformers", "tokenizers", "bert-tensorflow"),
        "notes": notes,
        "vocab": VOCABULARY,
        **lists,
        "fast_differs": fast_differs,
    }


def write_wordpiece():
    """Writes wordpiece.json in ASCII (control characters stay visible), one case a line (changes stay readable)."""
    transformers.logging.set_verbosity_error()
    fields = []
    for key, value in wordpiece_golden().items():
        if key == "vocab" or not isinstance(value, list):
            text = json.dumps(value)
        else:
            text = "[\n" + ",\n".join("  " + json.dumps(case) for case in value) + "\n]"
        fields.append(f"{json.dumps(key)}: {text}")
    content = "{\n" + ",\n".join(fields) + "\n}\n"
    (FOLDER / "wordpiece.json").write_text(content, encoding="ascii")


def main():
    """Writes both files and says how big they are."""
    write_tiny_bert()
    write_wordpiece()
    for name in ("tiny_bert.npz", "wordpiece.json"):
        print(f"{name}: {(FOLDER / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
