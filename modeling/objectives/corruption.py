"""Corrupted domains (MFT, section 3.2): how they are sampled, and the loss of the domain classifier on them.

A sample's corrupted domain is any domain except its own. The domain classifier is trained to predict it, so that the encoder's
features do not reveal the true domain.
"""

import numpy as np

from modeling.engine.runtime import flow
from modeling.objectives.losses import batch_mean
from ofrecord_util.seeds import corruption_stream


def corrupted_domains(domain, num_domains, seed, step):
    """z: one domain per sample, sampled uniformly from the other domains; a pure function of (seed, step).

    Args:
        domain: true domains, int [B].
        num_domains: K.
        seed: of the run.
        step: from 0.
    Returns:
        int32 [B]; the true domain if K is 1.
    """
    domain = np.asarray(domain, np.int64)
    if num_domains < 2:
        return domain.astype(np.int32)
    generator = corruption_stream(seed, step)
    return ((domain + generator.integers(1, num_domains, size=len(domain))) % num_domains).astype(np.int32)


def other_domains(domain, num_domains):
    """All domains that `corrupted_domains` samples from: int32 [B, K - 1]; the true domain, [B, 1], if K is 1."""
    domain = np.asarray(domain, np.int64)[:, None]
    if num_domains < 2:
        return domain.astype(np.int32)
    return ((domain + np.arange(1, num_domains)) % num_domains).astype(np.int32)


def with_corrupted_domains(batches, num_domains, seed, start_step=0, corruption="sampled", domains=None):
    """Adds `corrupted_domain` to each batch.

    Args:
        batches: iterable of dicts with `domain`, int32 [B].
        num_domains: K.
        seed: of the run.
        start_step: the step of the first batch.
        corruption: "sampled" for one domain per sample and step, int32 [B, 1]; "all" for all other domains, int32 [B, K - 1].
        domains: the domains that samples and targets have, ascending; None for all K. The shapes above are then those of this number.
    """
    domains = np.arange(num_domains) if domains is None else np.asarray(domains)
    for step, batch in enumerate(batches, start=start_step):
        places = np.searchsorted(domains, batch["domain"])
        if corruption == "sampled":
            corrupted = corrupted_domains(places, len(domains), seed, step)[:, None]
        else:
            corrupted = other_domains(places, len(domains))
        yield dict(batch, corrupted_domain=domains[corrupted].astype(np.int32))


def corruption_targets(corrupted_domain, num_domains):
    """Target distributions of the domain classifier.

    Args:
        corrupted_domain: z, int32 [B, n]; each of the n domains has the same probability.
        num_domains: K.
    Returns:
        [B, K].
    """
    one_hot = flow.nn.functional.one_hot(corrupted_domain.to(flow.int64), num_domains).to(flow.float32)  # [B, n, K]
    return one_hot.mean(dim=1)


def _mean_of_layers(rows, targets):
    """rows [n * B, K], layer by layer -> mean over the layers of each sample's sum over K of rows * targets: [B]."""
    samples, domains = targets.shape
    by_layer = rows.reshape(rows.shape[0] // samples, samples * domains)
    return (by_layer.mean(dim=0).reshape(samples, domains) * targets).sum(dim=1)


def corrupted_domain_loss(logits, targets):
    """Domain loss of each sample: mean over the layers Ls of CE(z_i; domain logits of l).

    Args:
        logits: of `domain_logits` for n layers, [n * B, K].
        targets: of `corruption_targets`, [B, K].
    Returns:
        [B].
    """
    return -_mean_of_layers(flow.log_softmax(logits, dim=-1), targets)


def corrupted_domain_accuracy(logits, targets, loss_mask):
    """Accuracy of the domain classifier on z: the target's probability at the largest logit, averaged over layers and real samples.

    Args:
        logits, targets: as for `corrupted_domain_loss`.
        loss_mask: see `batch_mean`.
    """
    one_hot = flow.nn.functional.one_hot(flow.argmax(logits, dim=-1), logits.shape[1]).to(flow.float32)
    return batch_mean(_mean_of_layers(one_hot, targets), loss_mask)
