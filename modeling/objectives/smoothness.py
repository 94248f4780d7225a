"""Terms that compare the label predictions of several passes over the same texts, and the noise that one of them needs.

    consistency    w * SKL(f(E), f(E)), with other dropout masks in the second pass (R-Drop, arXiv 2106.14448, as SOFA scales it)
    adversarial    SKL(f(E), f(E + n + d)), n ~ Normal(0, sigma^2), d = clip(a * G / max |G|, -b, b), G = d SKL(f(E), f(E + n)) / d n
                   (the term of SOFA's fine-tuning of StructBERT)

E are the word embeddings of a text before positions, segments, layer norm and dropout; f is the model up to the label logits. SKL is
`symmetric_divergence`. The maximum is that of one text. Each pass has dropout masks of its own. The gradient reaches both predictions of a
term, but neither G nor d. A text whose G is not finite has no adversarial term in the step. SOFA drops the term of the whole step, which
the parts, lanes and ranks of a step do not compute together.
"""

from typing import NamedTuple

import numpy as np

from modeling.engine import parallel
from modeling.engine.memo import memoize
from modeling.engine.runtime import flow
from modeling.engine.workarounds import gradient_of
from modeling.objectives.losses import batch_mean, symmetric_divergence
from ofrecord_util.errors import UserError
from ofrecord_util.seeds import noise_stream

NOISE = "embedding_noise"  # name of n in a batch
_LEAST_LARGEST = 1e-30  # of |G|, so that a text whose G is 0 has d = 0


class Smoothness(NamedTuple):
    """Settings of the terms. With the defaults there are none."""

    consistency_weight: float = 0.0  # w
    factor: float = 0.0  # a; 0 leaves the adversarial term out
    sigma: float = 0.0
    bound: float = 0.0  # b

    @property
    def names(self) -> tuple:
        """Names of the terms as metrics."""
        return (("consistency_loss",) if self.consistency_weight else ()) + (("adversarial_loss",) if self.factor else ())

    @property
    def passes(self) -> int:
        """Passes over the encoder in a training step."""
        return 1 + bool(self.consistency_weight) + 2 * bool(self.factor)


NOT_SMOOTH = Smoothness()


def smoothness_of(flags) -> Smoothness:
    """The settings of the flags of a script.

    Raises:
        UserError: mixed precision cannot represent the noise.
    """
    flags = vars(flags)
    factor, bound = flags.get("adversarial_factor", 0.0), flags.get("adversarial_bound")
    if factor and flags["use_fp16"]:
        raise UserError("--adversarial_factor: the noise is below the precision of --use_fp16: leave one of them out")
    sigma = flags.get("adversarial_sigma", 0.0)
    return Smoothness(flags.get("consistency_weight", 0.0), factor, sigma, 2 * sigma if bound is None else bound)


def terms_of(names, smoothness: Smoothness) -> tuple:
    """The names of metrics with those of the terms after the loss: the loss without them, and each of them.

    Args:
        names: of the metrics without the terms, the loss first.
    """
    return (names[0], *(("label_loss", *smoothness.names) if smoothness.names else ()), *names[1:])


def smoothness_terms(logits, again, variables, settings, loss_mask, input_mask, noise, device, compare=symmetric_divergence):
    """The terms that the settings ask for.

    Args:
        logits: label logits of the first pass, [B, C].
        again: function of (view of the variables, shift of the word embeddings [T, H] or None) -> logits of a further pass.
        variables: the graph's view of a `Variables`.
        settings: `Smoothness`.
        loss_mask: see `batch_mean`; None if `compare` has weighted its values already, so that a term is their plain mean.
        input_mask: see `build_bert`.
        noise: n, float32 [T, H]; None without the adversarial term.
        device: "cpu" or "cuda".
        compare: function of two arrays of logits -> their divergence for each text, [B].
    Returns:
        (list of the terms, in the order of `Smoothness.names`; their weighted sum, None if there are no terms).
    """

    def mean(values):
        return values.mean() if loss_mask is None else batch_mean(values, loss_mask)

    terms, total = [], None
    if settings.consistency_weight:
        terms.append(mean(compare(logits, again(variables, None))))
        total = terms[0] * settings.consistency_weight
    if settings.factor:
        gradient = _adversarial_gradient(logits, again, variables, noise, compare)
        step, finite = bounded_step(gradient, input_mask, settings.factor, settings.bound, device)
        terms.append(mean(compare(logits, again(variables, noise + step)) * finite))
        total = terms[-1] if total is None else total + terms[-1]
    return terms, total


def _adversarial_gradient(logits, again, variables, noise, compare):
    """G, [T, H], up to a factor."""
    place = noise.detach()
    place.requires_grad = True
    return gradient_of(compare(logits.detach(), again(WithoutGradients(variables), place)).sum(), place)


def bounded_step(gradient, input_mask, factor, bound, device):
    """clip(a * G / max |G|, -b, b), with the maximum over the tokens of each text and all dimensions; 0 at padding, and in texts whose G is
    not finite.

    Args:
        gradient: G, [T, H].
        input_mask: [B, S], or [R, C, S] in a packed batch.
        factor, bound: a and b.
        device: "cpu" or "cuda".
    Returns:
        (the step, [T, H]; 1 for the texts whose G is finite and 0 for the others, float32 [B]).
    """
    zero = gradient - gradient  # NaN where G is not finite
    wrong = flow.amax(1.0 - (zero == 0.0).to(flow.float32), dim=1)  # [T], 1 or 0
    gradient = flow.where(zero == 0.0, gradient, parallel.constant(tuple(gradient.shape), 0.0, device))
    rows, length, width = input_mask.shape[0], input_mask.shape[-1], gradient.shape[1]
    masks = input_mask.to(flow.float32).reshape(rows, -1, length)  # [R, C, S]
    sizes = flow.amax(flow.abs(gradient), dim=1).reshape(rows, 1, length)
    largest = flow.amax(masks * sizes, dim=2)  # [R, C]
    kept = 1.0 - flow.amax(masks * wrong.reshape(rows, 1, length), dim=2)  # [R, C]
    scales = flow.matmul((factor * kept / flow.clamp(largest, min=_LEAST_LARGEST)).reshape(rows, 1, -1), masks)  # [R, 1, C] @ [R, C, S]
    # a rank-one GEMM in place of a column broadcast, which is slow on a CPU
    spread = flow.matmul(scales.reshape(rows * length, 1), parallel.constant((1, width), 1.0, device))
    return flow.clamp(gradient * spread, min=-bound, max=bound), kept.reshape(-1)


class WithoutGradients:
    """A graph's view of a `Variables` whose tensors are constants for the backward pass.

    Args:
        variables: the graph's view of a `Variables`.
    """

    def __init__(self, variables):
        self._variables = variables

    def get(self, name):
        """As `Variables.get`."""
        return _constant(self._variables.get(name))

    def fused(self, *names):
        """As `Variables.fused`."""
        return _constant(self._variables.fused(*names))


def _constant(tensor):
    return memoize("constant", tensor.detach, of=tensor)


def with_noise(batches, settings, width, seed, start_step=0):
    """Adds the noise of the adversarial term to each batch, if the settings need it.

    Args:
        batches: iterable of dicts with `word_rows` [R, S].
        settings: `Smoothness`.
        width: H.
        seed: of the run.
        start_step: the step of the first batch.
    """
    return _noisy(batches, settings.sigma, width, seed, start_step) if settings.factor else batches


def _noisy(batches, sigma, width, seed, start_step):
    for step, batch in enumerate(batches, start=start_step):
        numbers = np.random.Generator(np.random.PCG64(noise_stream(seed, step))).standard_normal
        noise = numbers((batch["word_rows"].size, width), np.float32)
        yield {**batch, NOISE: noise * np.float32(sigma)}
