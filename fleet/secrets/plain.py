"""Opened values that do not show themselves. Pure."""

import hmac
from typing import Final, NoReturn

MASK: Final = "***"


class Plain:
    """The bytes of an opened secret value: only `reveal` gives them away.

    repr, str and format give a mask; it cannot be pickled, hashed or turned into bytes by accident.

    >>> value = Plain(b"hunter2")
    >>> f"{value} {value!r} {value:>5}", value.reveal()
    ('*** Plain(***) ***', b'hunter2')
    """

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # a hash is an oracle for guessing, and a key in a dict stays

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """Return the bytes: only where they are put into an API request, sealed again, or shown to who may see them."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and hmac.compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        return f"Plain({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an opened secret value is never serialised")
