"""Receipts, read and checked: written from docs/receipts.md alone."""

from blake3 import blake3
from cbor import Refused, Tag, read, write
from ed25519 import verify

VERSION = 2
TYPE = "application/vnd.lockstep.%s+cbor"


def need(condition, what):
    if not condition:
        raise Refused(what)


def uint(bits=64):
    return lambda value: type(value) is int and 0 <= value < 1 << bits


def size(*sizes):
    return lambda value: type(value) is bytes and len(value) in sizes


def fields(value, required, optional=None):
    """Whether a map has all required fields, and no other but the optional ones, each of its kind."""
    need(type(value) is dict, "not a map")
    known = {**required, **(optional or {})}
    for key, content in value.items():
        need(key in known, f"field {key} is unknown")
        need(known[key](content), f"field {key} has another kind or is out of range")
    for key in required:
        need(key in value, f"field {key} is missing")


def statement(data, kind):
    """The payload of a statement and its signer."""
    envelope = read(data)
    need(isinstance(envelope, Tag) and envelope.number == 18, "not a COSE_Sign1")
    parts = envelope.value
    need(type(parts) is list and len(parts) == 4, "not a COSE_Sign1")
    protected, unprotected, payload, signature = parts
    need(all(type(part) is bytes for part in (protected, payload, signature)), "not a COSE_Sign1")
    need(unprotected == {} and type(unprotected) is dict, "something unsigned")
    header = read(protected)
    fields(header, {1: lambda value: value == -19, 3: lambda value: value == TYPE % kind, 4: size(32)})
    need(len(signature) == 64, "not a signature")
    need(verify(header[4], write(["Signature1", protected, b"", payload]), signature), "the signature is not valid")
    content = read(payload)
    need(type(content) is dict and type(content.get(1)) is int and content[1] == VERSION, "another version")
    return content, header[4]


def receipt(data):
    need(len(data) <= 1024, "a receipt has at most 1,024 bytes")
    claims, node = statement(data, "receipt")
    hashes = dict.fromkeys((4, 9, 10, 11, 17), size(32))
    numbers = {1: uint(), 2: uint(32), 12: uint(), 13: uint(), 15: uint(), 18: uint(), 19: uint(32), 20: uint()}
    others = {
        3: lambda value: type(value) is str and value in ("a8", "a16"),
        14: lambda value: type(value) is int and value in (0, 1),
        16: lambda value: type(value) is bool,
        23: uint(32),
    }
    fields(claims, {**hashes, **numbers, **others}, {**dict.fromkeys((5, 6, 7, 8, 21), size(32)), 22: uint()})
    need((22 in claims) != claims[16], "a seed is the client's or has a number")
    need((21 in claims) == (claims[20] != 0), "only the first receipt has none before it")
    return claims, node


def salted(domain, salt, content):
    return blake3(bytes([domain]) + salt + content)


def tree(leaves):
    if not leaves:
        return blake3(b"\x12")
    if len(leaves) == 1:
        return leaves[0]
    left = 1 << (len(leaves) - 1).bit_length() - 1
    return blake3(b"\x12" + tree(leaves[:left]) + tree(leaves[left:]))


def tokens(value):
    return type(value) is bytes and len(value) % 4 == 0


def settings_of(value):
    texts = lambda value: type(value) is list and all(type(text) is str for text in value)  # noqa: E731
    fields(value, {1: uint(), 2: uint(32), 3: uint(), 4: uint(), 5: uint(), 6: uint(), 7: tokens, 8: texts})
    return write(value)


def request(claims, opening):
    settings = settings_of({**opening[3], 5: 0})
    return blake3(b"\x17" + claims[4] + claims.get(6, bytes(32)) + blake3(settings) + opening[1])


def seed(nonce, secret, request_hash):
    hash = blake3(bytes([0x18, len(nonce)]) + nonce + secret + request_hash)
    return int.from_bytes(hash[:8], "little") >> 11


def commitment(number, secret):
    return blake3(b"\x19" + number.to_bytes(8, "little") + secret)


def bundle(data):
    """The claims of a bundle that opens its receipt, and the opening."""
    content = read(data)
    fields(content, {1: lambda value: value == VERSION and type(value) is int, 2: lambda value: type(value) is bytes, 3: lambda value: type(value) is dict})
    claims, _ = receipt(content[2])
    opening = content[3]
    salts = dict.fromkeys((4, 5, 6, 7), size(16))
    required = {1: tokens, 2: tokens, 3: lambda value: type(value) is dict, **salts}
    required[8] = lambda value: type(value) is bytes and len(value) % 32 == 0
    if 22 in claims:
        required |= {9: size(*range(65)), 10: size(32), 11: uint()}
    fields(opening, required)
    settings = settings_of(opening[3])
    prompt, output = len(opening[1]) // 4, len(opening[2]) // 4
    leaves = [opening[8][i : i + 32] for i in range(0, len(opening[8]), 32)]
    need((claims[12], claims[13]) == (prompt, output), "other counts")
    need(claims[15] == opening[3][5], "another seed")
    need(len(leaves) == max(prompt + output - 1, 0), "another number of leaves")
    need(claims[9] == salted(0x13, opening[4], opening[1]), "another prompt")
    need(claims[10] == salted(0x14, opening[5], settings), "other settings")
    need(claims[11] == salted(0x15, opening[6], opening[2]), "another answer")
    need(claims[17] == salted(0x16, opening[7], tree(leaves)), "another trace")
    if 22 in claims:
        need(claims[15] == seed(opening[9], opening[10], request(claims, opening)), "a seed that was not derived")
    return claims, opening


def seeds(data):
    content, node = statement(data, "seeds")
    fields(content, {1: uint(), 2: uint(), 3: size(*range(32, 32 * 1024 + 1, 32)), 4: uint()})
    need(content[2] + len(content[3]) // 32 < 1 << 64, "numbers out of range")
    return content, node


def aborted(data):
    content, node = statement(data, "aborted")
    fields(content, {1: uint(), 2: lambda value: type(value) is list and all(map(uint(), value)), 3: uint()})
    numbers = content[2]
    need(len(numbers) % 2 == 0 and 1 <= len(numbers) // 2 <= 1024, "no ranges, or too many")
    end = -1
    for first, count in zip(numbers[::2], numbers[1::2]):
        need(first > end and count > 0 and first + count < 1 << 64, "ranges that are not in order")
        end = first + count
    return content, node


def countersignature(data):
    content, client = statement(data, "countersignature")
    fields(content, {1: uint(), 2: size(32), 3: uint()})
    return content, client
