"""OneFlow's own description of a graph, its job, and how operations of it are added and replaced before it becomes a plan.

That a job may be changed at all is private to OneFlow; tests/modeling/test_lanes.py holds it to that. An operation stands in five
places of a job, which are known here and nowhere else. Jobs of one process only: every blob is whole on the one device.
"""

import math


class CompiledJob:
    """A job, complete with backward pass and update.

    Args:
        proto: OneFlow's job; changed in place.
    """

    def __init__(self, proto):
        self.proto = proto
        self.operations = {operation.name: operation for operation in proto.net.op}

    def of_kind(self, kind):
        """The operations of OneFlow's type `kind`, in their order."""
        return [operation for operation in self.operations.values() if operation.user_conf.op_type_name == kind]

    def size(self, blob):
        """int, the numbers that a blob ("operation/output") holds."""
        return math.prod(self.proto.helper.lbn2logical_blob_desc[blob].shape.dim)

    def inputs(self):
        """dict name of operation -> list of the blobs that it takes."""
        return {name: _inputs(operation) for name, operation in self.operations.items()}

    def put(self, like, name, inputs, **attributes):
        """Adds an operation like another one, or, under the same name, puts it in its place.

        Args:
            like: an operation of one argument and one output.
            name: of the new one.
            inputs: list of blobs in place of those that `like` takes.
            attributes: name -> OneFlow's attribute value, for those that differ.
        Returns:
            its output, a blob of the same shape.
        """
        ((output, blobs),) = like.user_conf.output.items()
        new = like
        if name != like.name:
            blob = f"{name}/{blobs.s[0].rsplit('/', 1)[1]}"
            new = self.proto.net.op.add()
            new.CopyFrom(like)
            new.name, new.user_conf.output[output].s[0] = name, blob
            self.proto.helper.lbn2logical_blob_desc[blob].CopyFrom(self.proto.helper.lbn2logical_blob_desc[blobs.s[0]])
            (group,) = (group for group in self.proto.placement.placement_group if like.name in group.op_set.op_name)
            group.op_set.op_name.append(name)
            self.operations[name] = new
        (argument,) = new.user_conf.input
        new.user_conf.input[argument].s[:] = inputs
        for key, value in attributes.items():
            new.user_conf.attr[key].CopyFrom(value)
        self._describe(new)
        return new.user_conf.output[output].s[0]

    def _describe(self, operation):
        """Makes an operation's entries of its arguments: their blobs, and that each is whole on the device."""
        views, helper = self.proto.job_parallel_view_conf, self.proto.helper
        spreads = views.op_name2sbp_signature_conf[operation.name].bn_in_op2sbp_parallel
        nd_spreads = views.op_name2nd_sbp_signature_conf[operation.name].bn_in_op2nd_sbp
        blobs_of = helper.op_name2arg_signature[operation.name].bn_in_op2lbi
        for entries in (spreads, nd_spreads, blobs_of):
            entries.clear()
        for arguments in (operation.user_conf.input, operation.user_conf.output):
            for argument, blobs in arguments.items():
                for place, blob in enumerate(blobs.s):
                    name = f"{argument}_{place}"
                    spreads[name].broadcast_parallel.SetInParent()
                    nd_spreads[name].sbp_parallel.add().broadcast_parallel.SetInParent()
                    blobs_of[name].op_name, blobs_of[name].blob_name = blob.rsplit("/", 1)


def producer(blob):
    """Name of the operation whose output a blob is."""
    return blob.rsplit("/", 1)[0]


def in_order(inputs):
    """Names of operations (`CompiledJob.inputs`), each behind those that it takes from."""
    waiting = {name: len(blobs) for name, blobs in inputs.items()}
    users = {}
    for name, blobs in inputs.items():
        for blob in blobs:
            users.setdefault(producer(blob), []).append(name)
    order = [name for name, count in waiting.items() if not count]
    for name in order:
        for user in users.get(name, ()):
            waiting[user] -= 1
            if not waiting[user]:
                order.append(user)
    return order


def _inputs(operation):
    kind = operation.WhichOneof("op_type")
    if kind == "user_conf":
        return [blob for blobs in operation.user_conf.input.values() for blob in blobs.s]
    return [getattr(operation.output_conf, "in")] if kind == "output_conf" else []

