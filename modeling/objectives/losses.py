"""General loss terms as graph functions of logits. tests/modeling/objectives/test_losses.py has a NumPy reference for each."""

from modeling.engine.runtime import flow


def cross_entropy(logits, label):
    """Cross-entropy of each sample, -log softmax(logits)[label].

    Args:
        logits: [B, C].
        label: int32 [B].
    Returns:
        [B].
    """
    log_probs = flow.log_softmax(logits, dim=-1)
    one_hot = flow.nn.functional.one_hot(label.to(flow.int64), logits.shape[1]).to(flow.float32)
    return -(log_probs * one_hot).sum(dim=1)


def batch_mean(values, loss_mask):
    """Mean of values [B] over the real samples.

    Args:
        loss_mask: float32 [B] with mean 1; 0 for the rows that only fill up the last batch.
    """
    return (values * loss_mask).mean()


def accuracy(logits, label, loss_mask):
    """Share of the real samples whose largest logit is at `label`; arguments as for `cross_entropy` and `batch_mean`."""
    hit = (flow.argmax(logits, dim=-1) == label.to(flow.int64)).to(flow.float32)
    return batch_mean(hit, loss_mask)


def stack_metrics(*values):
    """Stacks M scalars into one tensor [M], so that a step copies one small array to the host."""
    return flow.cat([value.reshape(1) for value in values], dim=0)


def sum_terms(terms):
    """Sum of one or more tensors. Python's `sum` would add a 0 first."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
