"""The Merkle tree of RFC 6962, section 2.1, written as its definitions: recursive and slow. Shares no code with
`ledger.transparency`."""

import hashlib
from collections.abc import Sequence


def leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def root(leaves: Sequence[bytes], start: int = 0, end: int | None = None) -> bytes:
    """MTH of the leaf hashes with start <= index < end."""
    end = len(leaves) if end is None else end
    if start == end:
        return hashlib.sha256(b"").digest()
    if end - start == 1:
        return leaves[start]
    middle = start + split(end - start)
    return node(root(leaves, start, middle), root(leaves, middle, end))


def path(m: int, leaves: Sequence[bytes], start: int = 0, end: int | None = None) -> list[bytes]:
    """PATH(m, D[n]) of section 2.1.1; m counts from `start`."""
    end = len(leaves) if end is None else end
    if end - start <= 1:
        return []
    k = split(end - start)
    if m < k:
        return [*path(m, leaves, start, start + k), root(leaves, start + k, end)]
    return [*path(m - k, leaves, start + k, end), root(leaves, start, start + k)]


def proof(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF(m, D[n]) of section 2.1.2."""
    return _subproof(m, leaves, 0, len(leaves), whole=True)


def _subproof(m: int, leaves: Sequence[bytes], start: int, end: int, *, whole: bool) -> list[bytes]:
    if m == end - start:
        return [] if whole else [root(leaves, start, end)]
    k = split(end - start)
    if m <= k:
        return [*_subproof(m, leaves, start, start + k, whole=whole), root(leaves, start + k, end)]
    return [*_subproof(m - k, leaves, start + k, end, whole=False), root(leaves, start, start + k)]
