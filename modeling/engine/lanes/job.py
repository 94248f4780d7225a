"""OneFlow's own description of a graph, its job, and how operations of it are added and replaced before it becomes a plan.

That a job may be changed at all is private to OneFlow; tests/modeling/engine/lanes/test_lanes.py holds it to that. An operation stands in
five places of a job, which are known here and nowhere else. Jobs of one process only: every blob is whole on the one device.
"""

import math

_ADDED = "_add_to_output"  # argument of a GEMM to whose product it is added


class CompiledJob:
    """A job, complete with backward pass and update.

    Args:
        proto: OneFlow's job; changed in place.
    """

    def __init__(self, proto):
        self.proto = proto
        self.operations = {operation.name: operation for operation in proto.net.op}
        self._groups = None

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
        new = like if name == like.name else self._add(like, name)
        (argument,) = new.user_conf.input
        new.user_conf.input[argument].s[:] = inputs
        for key, value in attributes.items():
            new.user_conf.attr[key].CopyFrom(value)
        self._describe(new)
        ((_, blobs),) = new.user_conf.output.items()
        return blobs.s[0]

    def repeat(self, like, name, renamed):
        """Adds an operation like another one.

        Args:
            like: an operation.
            name: of the new one.
            renamed: dict blob -> the blob that the new one takes in its place; those that are not in it stay.
        Returns:
            dict of the outputs' blobs of `like` -> those of the new one.
        """
        new = self._add(like, name)
        self.take(name, [renamed.get(blob, blob) for blob in _inputs(new)])
        theirs, ours = (
            [blob for argument in sorted(operation.user_conf.output) for blob in operation.user_conf.output[argument].s]
            for operation in (like, new)
        )
        return dict(zip(theirs, ours))

    def add_up(self, blobs, name):
        """Adds the sum of blobs of one shape, an operation; returns its blob."""
        new = self._copy(self.operations[producer(blobs[0])], name)
        new.user_conf.Clear()
        new.user_conf.op_type_name = "add_n"
        new.user_conf.input["in"].s[:] = blobs
        new.user_conf.output["out"].s.append(f"{name}/out_0")
        new.user_conf.input_order.append("in")
        new.user_conf.output_order.append("out")
        (blob,) = new.user_conf.output["out"].s
        self.proto.helper.lbn2logical_blob_desc[blob].CopyFrom(self.proto.helper.lbn2logical_blob_desc[blobs[0]])
        self._describe(new)
        return blob

    def add_to(self, product, blob):
        """Lets a GEMM (its blob) add its product to a blob of the same shape; returns whether it could: it may do so already."""
        operation = self.operations[producer(product)]
        if operation.user_conf.op_type_name != "matmul" or _ADDED in operation.user_conf.input:
            return False
        operation.user_conf.input[_ADDED].s.append(blob)
        operation.user_conf.input_order.append(_ADDED)
        self._describe(operation)
        return True

    def take(self, name, blobs):
        """Gives the operation `name` other blobs, in the order of `inputs`."""
        operation = self.operations[name]
        if operation.WhichOneof("op_type") == "output_conf":
            (blob,) = blobs
            setattr(operation.output_conf, "in", blob)
        else:
            blobs = iter(blobs)
            for taken in operation.user_conf.input.values():
                taken.s[:] = [next(blobs) for _ in taken.s]
        self._describe(operation)

    def _copy(self, like, name):
        new = self.proto.net.op.add()
        new.CopyFrom(like)
        new.name = name
        self._group_of(like.name).append(name)
        self.operations[name] = new
        return new

    def _add(self, like, name):
        """A copy of an operation, with outputs of its own."""
        new, described = self._copy(like, name), self.proto.helper.lbn2logical_blob_desc
        for blobs in new.user_conf.output.values():
            for place, blob in enumerate(blobs.s):
                blobs.s[place] = f"{name}/{blob.rsplit('/', 1)[1]}"
                described[blobs.s[place]].CopyFrom(described[blob])
        return new

    def _group_of(self, name):
        """The names of the operations that are placed together with the one of that name."""
        if self._groups is None:
            names = [group.op_set.op_name for group in self.proto.placement.placement_group]
            self._groups = {name: group for group in names for name in group}
        return self._groups[name]

    def _describe(self, operation):
        """Makes an operation's entries of its arguments: their blobs, and that each is whole on the device."""
        views, helper = self.proto.job_parallel_view_conf, self.proto.helper
        spreads = views.op_name2sbp_signature_conf[operation.name].bn_in_op2sbp_parallel
        nd_spreads = views.op_name2nd_sbp_signature_conf[operation.name].bn_in_op2nd_sbp
        blobs_of = helper.op_name2arg_signature[operation.name].bn_in_op2lbi
        for entries in (spreads, nd_spreads, blobs_of):
            entries.clear()
        for name, blob in _arguments(operation):
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


def _arguments(operation):
    """(argument's name with its place, blob) of all that an operation takes and gives."""
    if operation.WhichOneof("op_type") == "output_conf":
        return [("in", getattr(operation.output_conf, "in")), ("out", f"{operation.name}/{operation.output_conf.out}")]
    conf = operation.user_conf
    return [
        (f"{argument}_{place}", blob)
        for arguments in (conf.input, conf.output)
        for argument, blobs in arguments.items()
        for place, blob in enumerate(blobs.s)
    ]
