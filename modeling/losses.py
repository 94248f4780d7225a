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


def corrupted_domain_loss(logits_by_layer, corrupted_domain):
    """MFT's domain loss of each sample: mean over the layers Ls of CE(z_i; domain logits of l) -> [B].

    Args:
        logits_by_layer: list of [B, K].
        corrupted_domain: z, int32 [B].
    """
    total = cross_entropy(logits_by_layer[0], corrupted_domain)
    for logits in logits_by_layer[1:]:
        total = total + cross_entropy(logits, corrupted_domain)
    return total * (1.0 / len(logits_by_layer))


def accuracy(logits, label, valid):
    """Share of the real samples whose largest logit is at `label`."""
    hit = (flow.argmax(logits, dim=-1) == label.to(flow.int64)).to(flow.float32)
    return masked_batch_mean(hit, valid)
