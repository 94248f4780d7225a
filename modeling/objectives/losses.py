"""Loss terms as graph functions of logits; each has a NumPy reference in tests/modeling/objectives/test_losses.py."""

from modeling.engine.runtime import flow


def cross_entropy(logits, label):
    """CE of each sample: -log softmax(logits)[label], logits [B, C], label int32 [B] -> [B]."""
    classes = logits.shape[1]
    log_probs = flow.log_softmax(logits, dim=-1)
    chosen = flow.nn.functional.one_hot(label.to(flow.int64), classes).to(flow.float32)
    return -(log_probs * chosen).sum(dim=1)


def batch_mean(values, loss_mask):
    """Mean of values [B] over the real samples: loss_mask [B] is 0 for rows that only fill the batch up, and its mean is 1."""
    return (values * loss_mask).mean()


def corruption_targets(corrupted_domain, num_domains):
    """What the domain head is to say: corrupted domains z, int32 [B, n] of n equal shares -> distributions [B, K]."""
    shares = flow.nn.functional.one_hot(corrupted_domain.to(flow.int64), num_domains).to(flow.float32)  # [B, n, K]
    return shares.mean(dim=1)


def _mean_of_layers(rows, targets):
    """rows [n * B, K], layer by layer -> mean over the layers of each sample's sum over K of rows * targets: [B]."""
    samples, domains = targets.shape
    by_layer = rows.reshape(rows.shape[0] // samples, samples * domains)
    return (by_layer.mean(dim=0).reshape(samples, domains) * targets).sum(dim=1)


def corrupted_domain_loss(logits, targets):
    """MFT's domain loss of each sample: mean over the layers Ls of CE(z_i; domain logits of l) -> [B].

    Args:
        logits: `domain_logits` of n layers, [n * B, K].
        targets: `corruption_targets` [B, K].
    """
    return -_mean_of_layers(flow.log_softmax(logits, dim=-1), targets)


def corrupted_domain_accuracy(logits, targets, loss_mask):
    """Mean over layers and real samples of the target's share at the largest logit: how often a drawn z is hit."""
    chosen = flow.nn.functional.one_hot(flow.argmax(logits, dim=-1), logits.shape[1]).to(flow.float32)
    return batch_mean(_mean_of_layers(chosen, targets), loss_mask)


def accuracy(logits, label, loss_mask):
    """Share of the real samples whose largest logit is at `label`."""
    hit = (flow.argmax(logits, dim=-1) == label.to(flow.int64)).to(flow.float32)
    return batch_mean(hit, loss_mask)
