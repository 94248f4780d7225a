"""The other lanes of a train graph (modeling/lanes.py), made from the first one in its compiled job.

A good part of the time that a graph takes to compile goes into tracing it and into OneFlow's passes over its job: backward pass, fusions,
updates. Lanes of one shape are the same operations, so that only the first is traced and completed; the others are written into the job as
its copies. What the lanes make for the whole batch, the gradients and the outputs, is then added up.
"""

from modeling.compiled_job import in_order, producer

NORM = "multi_reduce_sum_pow_abs"  # of all gradients, for their clipping
_UPDATE = "_update"  # how the names of OneFlow's update operations end


def repeat_lane(job, count):
    """Adds the other lanes to a job.

    Args:
        job: `CompiledJob` of a train graph, changed in place. It computes the first lane's share of the loss, gradients and outputs, each a
            term of a sum over the lanes; its inputs are those of all lanes, in turn.
        count: lanes.
    """
    inputs = job.inputs()
    order = in_order(inputs)
    entrances = [name for name in job.operations if job.operations[name].WhichOneof("op_type") == "input_conf"]
    own, joint = _parts(job, order, inputs, entrances[::count])
    copies = []
    for lane in range(1, count):
        renamed = {f"{first}/out": f"{other}/out" for first, other in zip(entrances[::count], entrances[lane::count])}
        for name in own:
            renamed.update(job.repeat(job.operations[name], f"{name}-lane-{lane}", renamed))
        copies.append(renamed)
    by_lane, by_all = set(own), set(joint)
    used_by_lane = {blob for name in own for blob in inputs[name]}
    totals = {}
    for name in joint:
        shares = {blob for blob in inputs[name] if producer(blob) in by_lane} | _shares(job, name)
        for blob in sorted(shares - totals.keys()):
            if producer(blob) not in by_all:
                # What no input of the batch reaches is the same share in every lane
                terms = [blob, *(renamed.get(blob, blob) for renamed in copies)]
                totals[blob] = _add_up(job, terms, within=producer(blob) in by_lane and blob not in used_by_lane)
        if not totals.keys().isdisjoint(inputs[name]):
            job.take_instead(name, totals)


def _parts(job, order, inputs, entrances):
    """(names of the operations that compute with the first lane's inputs, in order, names of those that see all lanes: clipping, updates,
    outputs)."""
    of_lane, own, joint = set(entrances), [], {}
    for name in order:
        producers = {producer(blob) for blob in inputs[name]}
        if _shares(job, name) or not producers.isdisjoint(joint.keys()):
            joint[name] = None
        elif not producers.isdisjoint(of_lane):
            of_lane.add(name)
            own.append(name)
    return own, list(joint)


def _shares(job, name):
    """The blobs that an operation takes as sums over all lanes, set: gradients of clipping and updates, outputs."""
    operation = job.operations[name]
    if operation.WhichOneof("op_type") == "output_conf":
        return {getattr(operation.output_conf, "in")}
    kind = operation.user_conf.op_type_name
    argument = "x" if kind == NORM else "model_diff" if kind.endswith(_UPDATE) else None
    return set(operation.user_conf.input[argument].s) if argument else set()


def _add_up(job, terms, within):
    """The sum of what the lanes make; where it may be `within` them, by the GEMMs that make it."""
    total = terms[0]
    rest = [total]
    for term in terms[1:]:
        if within and job.add_to(term, total):
            total = rest[0] = term
        else:
            rest.append(term)
    return rest[0] if len(rest) == 1 else job.add_up(rest, f"{producer(terms[0])}-of-all-lanes")
