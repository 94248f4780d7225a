"""The other lanes of a graph (modeling/engine/lanes/plan.py), made from the first one in its compiled job.

A good part of the time that a graph takes to compile goes into tracing it and into OneFlow's passes over its job: backward pass, fusions,
updates. Lanes of one shape are the same operations, so that only the first is traced and completed; the others are written into the job as
its copies. What the lanes make for the whole batch is then joined: gradients and a train graph's outputs are added up, a predict graph's
outputs are put behind each other.
"""

from modeling.engine.lanes.job import in_order, producer
from modeling.engine.lanes.plan import by_lane

NORM = "multi_reduce_sum_pow_abs"  # of all gradients, for their clipping
_UPDATE = "_update"  # how the names of OneFlow's update operations end


def replicate_lane(job, count, trains):
    """Adds the other lanes to a job.

    Args:
        job: `CompiledJob`, changed in place; its inputs are those of all lanes, in turn. A train graph's computes the first lane's share of
            the loss, gradients and outputs, each a term of a sum over the lanes. In a predict graph's the first lane's outputs stand
            in place of those of every lane, put behind each other.
        count: lanes.
        trains: which of both it is.
    """
    inputs = job.inputs()
    entrances = [name for name in job.operations if job.operations[name].WhichOneof("op_type") == "input_conf"]
    shares = _sums(job) if trains else _rows(job, inputs)
    first_lane, *other_lanes = by_lane(entrances, count)
    own, joint = _parts(in_order(inputs), inputs, first_lane, shares)
    if any(job.operations[name].WhichOneof("op_type") == "output_conf" for name in own):
        raise RuntimeError("an output of the first lane alone: OneFlow has changed how it joins the lanes")
    copies = []
    for lane, its_entrances in enumerate(other_lanes, start=1):
        renamed = {f"{first}/out": f"{other}/out" for first, other in zip(first_lane, its_entrances)}
        for name in own:
            renamed.update(job.repeat(job.operations[name], f"{name}-lane-{lane}", renamed))
        copies.append(renamed)
    if trains:
        _add_up(job, inputs, own, joint, shares, copies)
    else:
        for name, blobs in shares.items():
            job.take(name, [renamed.get(blob, blob) for blob, renamed in zip(blobs, [{}, *copies])])


def _sums(job):
    """dict name of each operation that takes sums over all lanes -> those blobs: gradients of clipping and updates, outputs."""
    sums = {}
    for name, operation in job.operations.items():
        kind = operation.user_conf.op_type_name
        if operation.WhichOneof("op_type") == "output_conf":
            sums[name] = [getattr(operation.output_conf, "in")]
        elif kind == NORM or kind.endswith(_UPDATE):
            sums[name] = operation.user_conf.input["x" if kind == NORM else "model_diff"].s
    return sums


def _rows(job, inputs):
    """dict name of each operation that puts an output's rows of all lanes behind each other -> its blobs."""
    outputs = [producer(*inputs[name]) for name in inputs if job.operations[name].WhichOneof("op_type") == "output_conf"]
    return {name: inputs[name] for name in outputs if job.operations[name].user_conf.op_type_name == "concat"}


def _parts(order, inputs, entrances, shares):
    """(names of the operations that compute with the first lane's inputs, in order; names of those that see all lanes: where the lanes'
    `shares` come together, and what follows)."""
    of_lane, own, joint = set(entrances), [], {}
    for name in order:
        producers = {producer(blob) for blob in inputs[name]}
        if name in shares or not producers.isdisjoint(joint.keys()):
            joint[name] = None
        elif not producers.isdisjoint(of_lane):
            of_lane.add(name)
            own.append(name)
    return own, list(joint)


def _add_up(job, inputs, own, joint, shares, copies):
    """Gives the operations that see all lanes the sums of what the lanes make."""
    by_lane, by_all = set(own), set(joint)
    used_by_lane = {blob for name in own for blob in inputs[name]}
    totals = {}
    for name in joint:
        taken = {blob for blob in inputs[name] if producer(blob) in by_lane}.union(shares.get(name, ()))
        for blob in sorted(taken - totals.keys()):
            if producer(blob) not in by_all:
                # What no input of the batch reaches is the same share in every lane
                terms = [blob, *(renamed.get(blob, blob) for renamed in copies)]
                totals[blob] = _sum(job, terms, within=producer(blob) in by_lane and blob not in used_by_lane)
        if not totals.keys().isdisjoint(inputs[name]):
            job.take(name, [totals.get(blob, blob) for blob in inputs[name]])


def _sum(job, terms, within):
    """The sum of what the lanes make; where it may be `within` them, by the GEMMs that make it."""
    total = terms[0]
    rest = [total]
    for term in terms[1:]:
        if within and job.add_to(term, total):
            total = rest[0] = term
        else:
            rest.append(term)
    return rest[0] if len(rest) == 1 else job.add_up(rest, f"{producer(terms[0])}-of-all-lanes")
