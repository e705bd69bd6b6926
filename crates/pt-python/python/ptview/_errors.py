"""What ptview raises.

One tree under :class:`Error`, which is a ``ValueError``. What the file system says stays itself: ``FileNotFoundError``,
``PermissionError`` and any other ``OSError``.
"""

__all__ = [
    "Error",
    "FormatError",
    "MissingError",
    "RangeError",
    "StaleIndexError",
    "TensorError",
]


class Error(ValueError):
    """Anything that is wrong with a file, an index, a tensor or what was asked of them.

    >>> import ptview
    >>> try:
    ...     ptview.open("page.html")
    ... except ptview.Error as error:
    ...     print(type(error).__name__)
    FormatError
    """


class FormatError(Error):
    """The file is not a PyTorch file, is damaged, or goes beyond what is read."""


class StaleIndexError(Error):
    """The index is damaged, of another version, or not of the file that is there."""


class TensorError(Error):
    """A tensor cannot be handed out in the way asked for; the message says why, and what can be done instead."""


class MissingError(Error, KeyError):
    """No tensor, column or file has this name.

    >>> import ptview
    >>> try:
    ...     ptview.open("model.pt")["layer.weigth"]
    ... except KeyError as error:
    ...     print(error)
    no tensor `layer.weigth`; there are 2, such as `layer.weight`
    """

    # KeyError would show the message in quotes.
    __str__ = ValueError.__str__


class RangeError(Error, IndexError):
    """No element, sample or file has this number."""
