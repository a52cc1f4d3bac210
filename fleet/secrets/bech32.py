"""Bech32, the form of age's recipients and identities. Pure.

Source: BIP-173, without its limit of 90 characters, as age has it.
"""

from typing import Final

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def encode_bech32(prefix: str, data: bytes) -> str:
    """Encode bytes under a lower-case prefix.

    >>> encode_bech32("age", bytes(32))
    'age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z'
    """
    values = _regroup(data, 8, 5, pad=True)
    check = _polymod([*_expand(prefix), *values, *[0] * 6]) ^ 1
    values += [(check >> 5 * (5 - i)) & 31 for i in range(6)]
    return f"{prefix}1{''.join(_ALPHABET[value] for value in values)}"


def decode_bech32(text: str) -> tuple[str, bytes]:
    """Return the prefix, in lower case, and the bytes.

    Raises: ValueError, which does not hold the text: it may be a private key.
    """
    lowered = text.lower()
    if text not in (lowered, text.upper()):
        raise ValueError("mixes upper and lower case")
    prefix, separator, rest = lowered.rpartition("1")
    if not separator or not prefix or len(rest) < 6 or not all(33 <= ord(letter) <= 126 for letter in prefix):
        raise ValueError("has no prefix or no checksum")
    if not all(letter in _VALUES for letter in rest):
        raise ValueError("has a character that does not belong there")
    values = [_VALUES[letter] for letter in rest]
    if _polymod([*_expand(prefix), *values]) != 1:
        raise ValueError("has a wrong checksum: a character is missing or mistyped")
    return prefix, bytes(_regroup(values[:-6], 5, 8, pad=False))


def _expand(prefix: str) -> list[int]:
    return [*(ord(letter) >> 5 for letter in prefix), 0, *(ord(letter) & 31 for letter in prefix)]


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(_GENERATOR):
            check ^= generator if (top >> i) & 1 else 0
    return check


def _regroup(data: bytes | list[int], before: int, after: int, *, pad: bool) -> list[int]:
    held = bits = 0
    out: list[int] = []
    for value in data:
        held, bits = held << before | value, bits + before
        while bits >= after:
            bits -= after
            out.append(held >> bits & ((1 << after) - 1))
        held &= (1 << bits) - 1
    if pad and bits:
        out.append(held << (after - bits))
    elif not pad and (bits >= before or held):
        raise ValueError("has bits left over at its end")
    return out
