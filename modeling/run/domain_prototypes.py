"""How similar texts are to each domain of a labelled set: cosine similarities to its prototypes (MFT, section 3.1).

A snapshot alone cannot say this. It has no prototypes, and its corrupted-domain classifier is trained to name a wrong domain.
"""

import numpy as np

from modeling.objectives.prototypes import compute_prototypes
from ofrecord_util.errors import UserError


class DomainPrototypes:
    """The prototypes of labelled texts.

    Args:
        embeddings: e(x), the mean of the hidden states of each text, float [N, H].
        domain, label: int [N].
        names: K names of the domains.
        num_labels: C.
    Attributes:
        names: the names of the domains that have texts, in order.
    Raises:
        UserError: fewer than two domains have texts.
    """

    def __init__(self, embeddings, domain, label, names, num_labels):
        prototypes = compute_prototypes(embeddings, domain, label, len(names), num_labels)
        present = prototypes.counts.sum(axis=1) > 0  # [K]
        self.names = [name for name, there in zip(names, present) if there]
        if len(self.names) < 2:
            raise UserError(f"the labelled texts have one domain ({', '.join(self.names)}): scores of domains need two or more")
        centroids = prototypes.centroids[present].astype(np.float64)  # [K, C, H]
        self._units = centroids / np.maximum(np.linalg.norm(centroids, axis=2, keepdims=True), 1e-12)
        self._counts = prototypes.counts[present]

    def scores(self, embeddings):
        """The greatest cosine similarity of each text to a prototype of each domain, over its labels.

        Args:
            embeddings: float [N, H].
        Returns:
            float64 [N, K], each in [-1, 1].
        """
        embeddings = np.asarray(embeddings, np.float64)
        units = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        cosines = np.einsum("kch,nh->nkc", self._units, units)
        return np.where(self._counts > 0, cosines, -1.0).max(axis=2)
