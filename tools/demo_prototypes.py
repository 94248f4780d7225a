"""A classifier without training: a text gets the label of the prototype that is nearest to its representation."""

import dataclasses
import json
import os

import numpy as np

from modeling.bert.config import MEAN
from modeling.bert.names import CLASSIFIER
from modeling.checkpoints.snapshot import CONFIG_FILE, TASK_FILE, VOCAB_FILE, Snapshot, write_variables
from ofrecord_util.errors import UserError


def write_prototype_classifier(folder, model_dir, data_dir, domain):
    """Writes a snapshot that classifies the texts of a domain by the nearest prototype of that domain.

    The nearest prototype is that with the largest cosine similarity to the mean e(x) of the last layer's states. All prototypes of a text
    share the norm of e(x), so the label is the argmax over y of e(x) c[y] / |c[y]|: the linear classifier of a snapshot with mean pooling.

    Args:
        folder: path of the new snapshot.
        model_dir: the snapshot with the encoder that computed the prototypes.
        data_dir: folder of the data, after preprocess.py.
        domain: name of the domain.
    Raises:
        UserError: there are no prototypes, or a snapshot cannot be read or written.
    """
    encoder, path = Snapshot(model_dir), os.path.join(data_dir, "ofrecord", "train", "prototypes.npz")
    if not encoder.shapes or encoder.vocab_file() is None:
        raise UserError(f"{model_dir} is not a complete encoder: give the folder of tools/fetch_demo_model.py")
    try:
        with np.load(path, allow_pickle=False) as file:
            domains, labels = file["domains"].tolist(), file["labels"].tolist()
            centroids = file["centroids"][domains.index(domain)].astype(np.float64)  # [C, H]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no prototypes of {domain}: run preprocess.py ({error})") from error
    variables = {name: encoder.read(name, shape) for name, shape in encoder.shapes.items()}
    weights = centroids / np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    variables[CLASSIFIER[0]], variables[CLASSIFIER[1]] = weights.astype(np.float32), np.zeros(len(labels), np.float32)
    with open(encoder.vocab_file(), "rb") as file:
        vocabulary = file.read()
    task = {
        "name": domain.lower(),
        "domains": [domain],
        "labels": labels,
        "pair": False,
        "seq_length": min(128, encoder.config().max_position_embeddings),
    }
    config = dataclasses.replace(encoder.config(), pooling=MEAN).to_json()
    write_variables(folder, variables, {CONFIG_FILE: config, VOCAB_FILE: vocabulary, TASK_FILE: json.dumps(task, indent=2) + "\n"})
