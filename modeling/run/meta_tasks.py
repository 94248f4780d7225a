"""The tasks of meta-learning: which rows of which domain. Pure functions of the records, the seed and the step."""

from typing import NamedTuple

import numpy as np

from modeling.run.held_out import held_out_domains, named_domains, names_of
from ofrecord_util.errors import UserError
from ofrecord_util.escaping import counted
from ofrecord_util.seeds import evaluation_task_stream, task_stream


class MetaTask(NamedTuple):
    """Rows of one domain."""

    domain: int
    support: np.ndarray  # int64 [K], rows of the training split
    query: np.ndarray  # int64 [L], further ones
    order_seed: int  # of the order of the support rows in the inner loop


class TaskSampler:
    """Draws tasks.

    Args:
        samples: `Samples` of the training split.
        task: `Task`, with the names of domains and labels.
        support_num, query_num: K and L, rows of a task.
        balanced: whether the support has the same number of rows of each label.
        seed: of the run.
        source: the file of the training split, for messages.
    """

    def __init__(self, samples, task, support_num, query_num, balanced, seed, source):
        self._domain, self._label, self._task = samples.domain, samples.label, task
        self._support, self._query, self._balanced, self._seed, self._source = support_num, query_num, balanced, seed, source
        if balanced and support_num % task.num_labels:
            raise UserError(f"--support_num {support_num}: with --class_balanced it must be divisible by the {task.num_labels} labels")

    def check(self, domains, query_num):
        """Checks that domains have enough rows for a task with `query_num` query rows.

        Raises:
            UserError: a domain has too few.
        """
        numbers = "--support_num, --query_num" if query_num else "--support_num"
        for domain in domains:
            rows = np.flatnonzero(self._domain == domain)
            need, name = self._support + query_num, self._task.domains[domain]
            if len(rows) < need:
                least = (self._task.num_labels if self._balanced else 1) + bool(query_num)  # rows of the smallest task
                remedies = ["give smaller numbers"] if len(rows) >= least else []
                # a domain that is only measured is adapted to support rows, too
                remedies += ["name it in --held_out_domains"] if len(rows) >= self._support else []
                remedies += ["add rows"] if len(rows) else ["add rows", "leave the domain out of --domains"]
                raise UserError(
                    f"{self._source}: domain {name} has {counted(len(rows), 'row')}, but a task needs {need} of it ({numbers}): "
                    + ", or ".join(remedies)
                )
            if self._balanced:
                share = self._support // self._task.num_labels
                for label, number in enumerate(np.bincount(self._label[rows], minlength=self._task.num_labels)):
                    if number < share:
                        raise UserError(
                            f"{self._source}: domain {name} has {counted(number, 'row')} of label {self._task.labels[label]}, but "
                            f"--class_balanced needs {share}: {'give a smaller --support_num, or ' if number else ''}add rows"
                        )

    def training_task(self, domains, step, number):
        """Task `number` of an outer step (both from 0): one of the domains, all with the same probability, and rows of it."""
        generator = task_stream(self._seed, step, number)
        domain = domains[int(_words(generator, 1)[0]) % len(domains)]
        return self._draw(generator, domain, self._query)

    def evaluation_task(self, domain, number=0):
        """Task `number` to which the weights are adapted before the domain is evaluated: the same in the whole run, without query rows."""
        return self._draw(evaluation_task_stream(self._seed, domain, number), domain, 0)

    def _draw(self, generator, domain, query_num):
        rows = np.flatnonzero(self._domain == domain)
        order_seed = int(_words(generator, 1)[0]) >> 1
        rows = rows[np.argsort(_words(generator, len(rows)), kind="stable")]
        if self._balanced:
            share, labels = self._support // self._task.num_labels, self._label[rows]
            chosen = np.zeros(len(rows), bool)
            for label in range(self._task.num_labels):
                chosen[np.flatnonzero(labels == label)[:share]] = True
            rows = np.concatenate([rows[chosen], rows[~chosen]])
        return MetaTask(int(domain), rows[: self._support], rows[self._support : self._support + query_num], order_seed)


def _words(generator, count):
    """Raw words, which all versions of NumPy draw alike."""
    return generator.bit_generator.random_raw(count)


def choose_domains(flags, task):
    """(training domains, domains on which dev and test are measured, held-out domains) of a meta-learning run, lists of numbers.

    Raises:
        UserError: a name is unknown or in both flags, or no training domain is left.
    """
    held_out, validation = held_out_domains(flags, task), named_domains(flags, "validation_domains", task)
    both = set(held_out) & set(validation)
    if both:
        raise UserError(f"--held_out_domains, --validation_domains: {names_of(sorted(both), task)} must not be in both")
    training = [domain for domain in range(task.num_domains) if domain not in held_out and domain not in validation]
    if not training:
        raise UserError("--held_out_domains, --validation_domains: no domain is left for training")
    return training, validation or training, held_out
