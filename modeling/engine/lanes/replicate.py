"""Replicates the first lane of a graph (modeling/engine/lanes/plan.py) in the compiled job, to get the other lanes.

Much of the time to compile a graph goes into tracing and into OneFlow's passes over the job: backward pass, fusions, updates. Lanes of one
shape have the same operations. So only the first lane is traced and completed, and the other lanes are added to the job as its copies. Then
the lanes are joined: the gradients and the outputs of a train graph are sums over the lanes, and the outputs of a predict graph are
concatenated.
"""

from modeling.engine.lanes.job import NORM, UPDATE, in_order, producer
from modeling.engine.lanes.plan import by_lane


def replicate_lane(job, count, trains):
    """Adds the other lanes to a job.

    Args:
        job: `CompiledJob`, changed in place. It has the inputs of all lanes, in the order of `interleave`. The job of a train graph
            computes the first lane's parts of loss, gradients and outputs, which are sums over the lanes. The job of a predict graph
            concatenates the first lane's outputs once for each lane.
        count: number of lanes.
        trains: whether the job is that of a train graph.
    """
    inputs = job.inputs()
    entrances = [name for name in job.operations if job.operations[name].WhichOneof("op_type") == "input_conf"]
    parts = _sums(job) if trains else _rows(job, inputs)
    first_lane, *other_lanes = by_lane(entrances, count)
    own, joint = _split(in_order(inputs), inputs, first_lane, parts)
    if any(job.operations[name].WhichOneof("op_type") == "output_conf" for name in own):
        raise RuntimeError("the job has an output of the first lane only: OneFlow has changed how it joins the lanes")
    copies = []
    for lane, its_entrances in enumerate(other_lanes, start=1):
        renamed = {f"{first}/out": f"{other}/out" for first, other in zip(first_lane, its_entrances)}
        for name in own:
            renamed.update(job.repeat(job.operations[name], f"{name}-lane-{lane}", renamed))
        copies.append(renamed)
    if trains:
        _add_up(job, inputs, own, joint, parts, copies)
    else:
        for name, blobs in parts.items():
            job.take(name, [renamed.get(blob, blob) for blob, renamed in zip(blobs, [{}, *copies])])


def _sums(job):
    """Operations whose inputs are sums over all lanes: gradient clipping, updates, outputs.

    Returns:
        dict of operation name -> list of the input blobs that are partial sums of the first lane.
    """
    sums = {}
    for name, operation in job.operations.items():
        kind = operation.user_conf.op_type_name
        if operation.WhichOneof("op_type") == "output_conf":
            sums[name] = [getattr(operation.output_conf, "in")]
        elif kind == NORM or kind.endswith(UPDATE):
            sums[name] = operation.user_conf.input["x" if kind == NORM else "model_diff"].s
    return sums


def _rows(job, inputs):
    """Operations that concatenate the rows of an output over all lanes.

    Returns:
        dict of operation name -> list of its input blobs.
    """
    outputs = [producer(*inputs[name]) for name in inputs if job.operations[name].WhichOneof("op_type") == "output_conf"]
    return {name: inputs[name] for name in outputs if job.operations[name].user_conf.op_type_name == "concat"}


def _split(order, inputs, entrances, parts):
    """Splits the operations of a job into those of the first lane and those that depend on all lanes.

    Args:
        order: operation names in topological order.
        inputs: from `CompiledJob.inputs`.
        entrances: names of the first lane's input operations.
        parts: dict whose keys are the operations that join the parts of all lanes.
    Returns:
        (names of the operations that depend on the first lane's inputs only, names of the operations that join lanes and of those that
        follow), both in order.
    """
    of_lane, own, joint = set(entrances), [], {}
    for name in order:
        producers = {producer(blob) for blob in inputs[name]}
        if name in parts or not producers.isdisjoint(joint.keys()):
            joint[name] = None
        elif not producers.isdisjoint(of_lane):
            of_lane.add(name)
            own.append(name)
    return own, list(joint)


def _add_up(job, inputs, own, joint, parts, copies):
    """Replaces the first lane's partial sums by sums over all lanes, in the inputs of the operations that depend on all lanes."""
    by_lane, by_all = set(own), set(joint)
    used_by_lane = {blob for name in own for blob in inputs[name]}
    totals = {}
    for name in joint:
        taken = {blob for blob in inputs[name] if producer(blob) in by_lane}.union(parts.get(name, ()))
        for blob in sorted(taken - totals.keys()):
            if producer(blob) not in by_all:
                # A part that does not depend on the batch is the same in every lane
                terms = [blob, *(renamed.get(blob, blob) for renamed in copies)]
                totals[blob] = _sum(job, terms, within=producer(blob) in by_lane and blob not in used_by_lane)
        if not totals.keys().isdisjoint(inputs[name]):
            job.take(name, [totals.get(blob, blob) for blob in inputs[name]])


def _sum(job, terms, within):
    """Adds operations that sum one part per lane. If `within` is true, GEMMs that produce a part also add it to the sum."""
    total = terms[0]
    rest = [total]
    for term in terms[1:]:
        if within and job.add_to(term, total):
            total = rest[0] = term
        else:
            rest.append(term)
    return rest[0] if len(rest) == 1 else job.add_up(rest, f"{producer(terms[0])}-of-all-lanes")
