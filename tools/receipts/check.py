"""A second implementation of docs/receipts.md agrees with its test vectors, and refuses what was changed in them.

    python3 tools/receipts/check.py [CHANGES]

CHANGES is how many changed statements and bundles must be refused, 300 if not given. Needs nothing but Python.
"""

import os
import random
import re
import sys

import receipts
from blake3 import blake3
from cbor import Refused

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "receipts.md")


def vectors():
    with open(DOCUMENT, encoding="utf-8") as file:
        text = file.read()
    found = re.findall(r"^([a-z ]+):\n((?:[0-9a-f]+\n)+)", text[text.index("## 8. Test vectors") :], re.MULTILINE)
    return {name: bytes.fromhex(digits.replace("\n", "")) for name, digits in found}


def agree(vector):
    claims, opening = receipts.bundle(vector["bundle"])
    alone, node = receipts.receipt(vector["receipt"])
    assert claims == alone
    assert blake3(vector["receipt"]) == vector["hash"]
    for name, key in (("prompt", 9), ("settings", 10), ("output", 11), ("trace", 17)):
        assert claims[key] == vector[name], name
    assert opening[1] == b"".join(token.to_bytes(4, "little") for token in (1, 15043, 29892))
    assert receipts.request(claims, opening) == vector["request"]
    secret = bytes([0xC3]) * 32
    numbered, its_opening = receipts.bundle(vector["numbered bundle"])
    assert numbered[15] == int.from_bytes(vector["seed"], "big") == receipts.seed(b"dice", secret, vector["request"])
    assert (numbered[22], its_opening[9], its_opening[10]) == (3, b"dice", secret)
    assert receipts.commitment(3, secret) == vector["commitment"]
    seeds, its_node = receipts.seeds(vector["seeds"])
    assert its_node == node and seeds[3][3 * 32 :] == vector["commitment"]
    assert receipts.aborted(vector["aborted"])[0][2] == [0, 2, 4, 1]
    assert receipts.countersignature(vector["countersignature"])[0][2] == vector["hash"]


def change(data, chance):
    """Another sequence of bytes."""
    at = chance.randrange(len(data))
    match chance.randrange(4):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + bytes([chance.randrange(256)]) + data[at:]
        case _:
            return data[:at] + data[at + 1 :]


def refuse(vector, changes):
    readers = {
        "receipt": receipts.receipt,
        "bundle": receipts.bundle,
        "numbered bundle": receipts.bundle,
        "seeds": receipts.seeds,
        "aborted": receipts.aborted,
        "countersignature": receipts.countersignature,
    }
    chance = random.Random(20261120)
    for i in range(changes):
        name = list(readers)[i % len(readers)]
        changed = change(vector[name], chance)
        if changed == vector[name]:
            continue
        try:
            readers[name](changed)
        except Refused:
            continue
        raise AssertionError(f"{name} was not refused: {changed.hex()}")


changes = int(sys.argv[1]) if len(sys.argv) > 1 else 300
found = vectors()
agree(found)
refuse(found, changes)
print(f"{len(found)} vectors agree, {changes} changed ones are refused")
