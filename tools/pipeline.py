"""The class that `--pipeline MODULE:CLASS` names: a subclass of `modeling.predictor.Predictor` in a module of the user."""

import importlib
import os
import sys

from modeling.predictor import Predictor
from ofrecord_util.errors import UserError

HELP = "subclass of modeling.predictor.Predictor, in a module of the current folder or an installed one"


def load_pipeline(name):
    """The class that `name` stands for; `Predictor` for None.

    Args:
        name: MODULE:CLASS, or None. The module is also searched in the current folder.
    Raises:
        UserError: there is no such module or class, the module fails, or the class is not a subclass of `Predictor`.
    """
    if name is None:
        return Predictor
    module_name, colon, class_name = name.partition(":")
    if not colon or not module_name or not class_name:
        raise UserError(f"--pipeline {name}: give MODULE:CLASS, such as my_pipeline:Careful")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # behind the project's own modules
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # whatever the user's module raises
        raise UserError(f"--pipeline {name}: cannot be loaded ({type(error).__name__}: {error})") from error
    if not isinstance(found, type) or not issubclass(found, Predictor):
        raise UserError(f"--pipeline {name}: {class_name} is not a subclass of modeling.predictor.Predictor")
    return found
