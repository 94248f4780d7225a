"""Loss terms as graph functions of logits; each has a NumPy reference in tests/modeling/test_losses.py."""

from modeling.runtime import flow


def cross_entropy(logits, label):
    """CE of each sample: -log softmax(logits)[label], logits [B, C], label int32 [B] -> [B]."""
    batch, classes = logits.shape
    log_probs = flow.log_softmax(logits, dim=-1)
    chosen = flow.nn.functional.one_hot(label.to(flow.int64), classes).to(flow.float32)
    return -(log_probs * chosen).sum(dim=1)


def masked_batch_mean(values, valid):
    """Mean of values [B] over the real samples: valid [B] is 0 for rows that only fill the batch up."""
    return (values * valid).sum() / flow.clamp(valid.sum(), min=1.0)


def corruption_targets(corrupted_domain, num_domains):
    """What the domain head is to say: corrupted domains z, int32 [B, n] of n equal shares -> distributions [B, K]."""
    shares = flow.nn.functional.one_hot(corrupted_domain.to(flow.int64), num_domains).to(flow.float32)  # [B, n, K]
    return shares.mean(dim=1)


def corrupted_domain_loss(logits_by_layer, targets):
    """MFT's domain loss of each sample: mean over the layers Ls of CE(z_i; domain logits of l) -> [B].

    Args:
        logits_by_layer: list of [B, K].
        targets: `corruption_targets` [B, K].
    """
    total = flow.log_softmax(logits_by_layer[0], dim=-1)
    for logits in logits_by_layer[1:]:
        total = total + flow.log_softmax(logits, dim=-1)
    return -(total * targets).sum(dim=1) * (1.0 / len(logits_by_layer))


def corrupted_domain_accuracy(logits_by_layer, targets, valid):
    """Mean over layers and real samples of the target's share at the largest logit: how often a drawn z is hit."""
    total = 0.0
    for logits in logits_by_layer:
        chosen = flow.nn.functional.one_hot(flow.argmax(logits, dim=-1), logits.shape[1]).to(flow.float32)
        total = masked_batch_mean((chosen * targets).sum(dim=1), valid) + total
    return total * (1.0 / len(logits_by_layer))


def accuracy(logits, label, valid):
    """Share of the real samples whose largest logit is at `label`."""
    hit = (flow.argmax(logits, dim=-1) == label.to(flow.int64)).to(flow.float32)
    return masked_batch_mean(hit, valid)
