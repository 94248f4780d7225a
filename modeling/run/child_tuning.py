"""Child-Tuning in a run (--child_tuning, --reserve_p): its masks, their estimate from the training split, and their place in a state.

The rule is that of modeling/bert/child_tuning.py; modeling/engine/gradient_masks.py applies the masks between clipping and optimizer.
"""

from modeling.bert.child_tuning import FisherInformation, pack_masks, task_free_masks, unpack_masks
from modeling.cli.choices import NO_CHILD, TASK_DRIVEN, TASK_FREE
from modeling.engine import parallel
from modeling.engine.gradient_masks import GradientMasks
from modeling.engine.runtime import oneflow_version
from modeling.run.optimizer import CLIP_NORM
from ofrecord_util.errors import UserError

MASK_NAME = "child_tuning-mask"  # of the array in a state
_NEEDED_VERSION = (0, 9, 0)  # of OneFlow, for gradients that a graph returns


def uses_masks(flags) -> bool:
    """Whether a run masks its gradients. A share of 1 keeps all of them."""
    return getattr(flags, "child_tuning", NO_CHILD) != NO_CHILD and flags.reserve_p < 1


def fisher_size(flags, batch_size):
    """Samples whose gradients are averaged before they are squared: those of --fisher_batch_size, else of a training batch.

    Args:
        flags: flags of the script, which may lack this flag.
        batch_size: samples of a training batch.
    Raises:
        UserError: they are more than a training batch has.
    """
    size = getattr(flags, "fisher_batch_size", None)
    if size is None or flags.child_tuning != TASK_DRIVEN or not uses_masks(flags):
        return batch_size
    if size > batch_size:
        raise UserError(f"--fisher_batch_size {size}: a training batch has {batch_size} samples: give at most {batch_size}")
    return size


def fisher_layout(size, batch_size, parts):
    """Arguments of `iterate_training` for the batches of the Fisher information.

    Args:
        size: of `fisher_size`.
        batch_size: samples of a training batch.
        parts: into how many equal parts the train function cuts a batch, over all devices.
    Returns:
        (rows of a batch, dict of further arguments). A batch has as many rows as the parts need, of which `size` count.
    """
    return (batch_size, {}) if size == batch_size else (-(-size // parts) * parts, {"counted": size})


class ChildTuning:
    """The masks of a training run.

    Args:
        context: `RunContext`.
        variables: the trained `Variables`.
        max_norm: limit of the norm of all gradients of a step; None for no clip.
    Attributes:
        masks: `GradientMasks` for the train function; None if the gradients are not masked.
        clip_norm: to which norm the optimizer clips: None if the masks do it, else `max_norm`.
    Raises:
        UserError: no variable would have a mask, or mixed precision or the version of OneFlow excludes masks.
    """

    def __init__(self, context, variables, max_norm=CLIP_NORM):
        flags, engine = context.flags, context.engine
        self._log, self._seed, self._share = context.log, flags.seed, flags.reserve_p
        self._mode, self.masks, self._fisher, self._chosen, self.clip_norm = NO_CHILD, None, None, None, max_norm
        if not uses_masks(flags):
            if flags.child_tuning != NO_CHILD:
                context.log("--reserve_p 1 keeps all gradients, so --child_tuning has no effect")
            return
        option = f"--child_tuning {flags.child_tuning}"
        if flags.use_fp16:
            raise UserError(f"{option}: not possible with --use_fp16: leave one of them out")
        if not engine.sums_gradients and oneflow_version() < _NEEDED_VERSION:
            raise UserError(f"{option}: needs OneFlow 0.9 on a GPU and with several processes: leave it out, or use one process on a CPU")
        self._mode, names = flags.child_tuning, None
        if self._mode == TASK_DRIVEN:
            self._fisher = FisherInformation(variables.columns(), CLIP_NORM)
            names = self._fisher.names
            if not names:
                raise UserError(
                    f"{option}: all encoder layers are frozen, so there is nothing to choose from: give --child_tuning F or none"
                )
        self.masks, self.clip_norm = GradientMasks(variables, engine.device, max_norm, names), None

    def before_step(self, step):
        """Sets the masks of a step (from 0) if each step has its own."""
        if self._mode == TASK_FREE:
            for name, mask in task_free_masks(self.masks.shapes, self._share, self._seed, step):
                self.masks.set(name, mask)

    def estimate(self, job, batches):
        """Chooses the elements that are trained, from the gradients of some batches. Only D does this; F draws its masks.

        Args:
            job: the train `GlobalFunction` before its first step.
            batches: iterable of its batches, those of the training split.
        Raises:
            UserError: a gradient is not finite.
        """
        if self._mode != TASK_DRIVEN:
            return
        for batch in batches:
            parallel.check_interruption()
            _, gradients = job.gradients({name: array for name, array in batch.items() if name != "idxs"})
            self._fisher.add(gradients)
        if not self._fisher.finite:
            raise UserError(
                "--child_tuning D: the gradients of the training split are not finite: check the samples and the snapshot of "
                "--model_load_dir"
            )
        masks = self._fisher.masks(self._share)
        kept, total = self._fisher.kept(masks)
        self._log(
            f"Child-Tuning: {kept:,} of {total:,} elements of the encoder layers are trained ({100 * kept / total:.1f} %), chosen by "
            f"Fisher information over {self._fisher.batches} batches"
        )
        self._set(masks)

    def _set(self, masks):
        self._chosen = masks
        for name, mask in masks.items():
            self.masks.set(name, mask)

    def arrays(self):
        """The arrays for a state, dict of name -> float32 array; empty if the masks follow from seed and step."""
        return {} if self._chosen is None else {MASK_NAME: pack_masks(self._chosen)}

    def restore(self, state):
        """Continues with the masks of a `State`.

        Raises:
            UserError: the state has no masks for the run's variables.
        """
        if self._mode != TASK_DRIVEN:
            return
        try:
            self._set(unpack_masks(state.arrays[MASK_NAME], self.masks.shapes))
        except (KeyError, ValueError):
            raise UserError(f"{state.path}: {MASK_NAME} is missing, or does not fit the variables of the run") from None
