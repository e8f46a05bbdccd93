"""One ``repr`` for all values of the core.

attrs would generate and compile one for each class, whenever fsrep starts: a tenth of the
instructions of a run that has nothing to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import attrs

__all__ = ["Shown"]


class Shown:
    """Base of classes that attrs makes with ``repr=False``, to be shown as others of attrs are."""

    __slots__ = ()

    if TYPE_CHECKING:
        __attrs_attrs__: ClassVar[tuple[attrs.Attribute[Any], ...]]

    def __repr__(self) -> str:
        fields = [each for each in attrs.fields(type(self)) if each.repr]
        shown = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in fields)
        return f"{type(self).__qualname__}({shown})"
