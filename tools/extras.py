"""Imports the packages of requirements-extras.txt, which only some tools need. All other code does without them."""

import importlib

from ofrecord_util.errors import UserError


def extra(name, what):
    """Returns a module of one of these packages.

    Args:
        name: of the module, such as "onnx.helper".
        what: needs it, for the message.
    Raises:
        UserError: its package is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise UserError(
            f"{what} needs the package {package}, which is not installed or cannot be imported ({error}): "
            "pip install -r requirements-extras.txt (CPython 3.10)"
        ) from error
