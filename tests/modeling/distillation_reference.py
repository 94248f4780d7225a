"""The terms of modeling/objectives/distillation.py in NumPy, written from the formulas."""

import numpy as np
from tiny_model import log_softmax

from modeling.objectives.distillation import LossWeights

FULL = LossWeights(0.7, 1.3, 0.9, 1.1, 0.2, 0.4)


def softmax(logits):
    return np.exp(log_softmax(logits))


def weights_reference(score, logits, label):
    p = softmax(logits)[np.arange(len(label)), label]
    return (1 + score.astype(np.float64)) / (np.exp((p - 1) ** 2) + 1)


def hidden_reference(students, teachers, mask, projections=None):
    per_layer = []
    for m, (student, teacher) in enumerate(zip(students, teachers)):
        student = student if projections is None else student.astype(np.float64) @ projections[m]
        per_layer.append([((s[k == 1] - t[k == 1]) ** 2).mean() for s, t, k in zip(student, teacher.astype(np.float64), mask)])
    return np.mean(per_layer, axis=0)


def attention_reference(students, teachers, mask):
    per_layer = []
    for student, teacher in zip(students, teachers):
        if student.shape[1] != teacher.shape[1]:
            student, teacher = student.mean(axis=1, keepdims=True), teacher.mean(axis=1, keepdims=True)
        error = (student.astype(np.float64) - teacher) ** 2
        per_layer.append([e[:, k == 1][:, :, k == 1].mean() for e, k in zip(error, mask)])
    return np.mean(per_layer, axis=0)


def relation(x, y):
    """softmax(x y^T / sqrt(D)) of one head: x, y [S, D] -> [S, S]."""
    return softmax(x.astype(np.float64) @ y.T.astype(np.float64) / np.sqrt(x.shape[1]))


def divergence(p, q):
    """Sum of KL(p || q) over the rows."""
    return (p * (np.log(p) - np.log(q))).sum()


def relation_reference(student, teacher, mask):
    """L_AT + L_VR of each sample, from real tokens alone. student, teacher: (query, key, value), each [B, N, S, D]."""
    losses = []
    for sample, real in enumerate(mask == 1):
        total = 0.0
        for head in range(student[0].shape[1]):
            (sq, sk, sv), (tq, tk, tv) = ([part[sample, head][real] for part in side] for side in (student, teacher))
            total += divergence(relation(tq, tk), relation(sq, sk)) + divergence(relation(tv, tv), relation(sv, sv))
        losses.append(total / (student[0].shape[1] * real.sum()))
    return np.array(losses)
