"""BLAKE3 with 32 bytes of output, from its paper; slow and plain."""

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
MASK = 0xFFFFFFFF


def mix(v, a, b, c, d, x, y):
    def turn(word, bits):
        return (word >> bits | word << 32 - bits) & MASK

    v[a] = (v[a] + v[b] + x) & MASK
    v[d] = turn(v[d] ^ v[a], 16)
    v[c] = (v[c] + v[d]) & MASK
    v[b] = turn(v[b] ^ v[c], 12)
    v[a] = (v[a] + v[b] + y) & MASK
    v[d] = turn(v[d] ^ v[a], 8)
    v[c] = (v[c] + v[d]) & MASK
    v[b] = turn(v[b] ^ v[c], 7)


def compress(chaining, block, counter, length, flags):
    """The new chaining value: the first half of the state folded with the second."""
    m = [int.from_bytes(block[i : i + 4], "little") for i in range(0, 64, 4)]
    v = list(chaining) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]
    for _ in range(7):
        for i in range(4):
            mix(v, i, i + 4, i + 8, i + 12, m[2 * i], m[2 * i + 1])
        for i in range(4):
            mix(v, i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12, m[8 + 2 * i], m[9 + 2 * i])
        m = [m[i] for i in ORDER]
    return [v[i] ^ v[i + 8] for i in range(8)]


def chunk(data, counter, root):
    value = IV
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    for i, block in enumerate(blocks):
        flags = CHUNK_START * (i == 0) | (CHUNK_END | root) * (i == len(blocks) - 1)
        value = compress(value, block.ljust(64, b"\0"), counter, len(block), flags)
    return value


def tree(data, counter, root):
    if len(data) <= 1024:
        return chunk(data, counter, root)
    chunks = (len(data) - 1) // 1024
    left = 1 << chunks.bit_length() - 1
    halves = tree(data[: 1024 * left], counter, 0) + tree(data[1024 * left :], counter + left, 0)
    return compress(IV, b"".join(word.to_bytes(4, "little") for word in halves), 0, 64, PARENT | root)


def blake3(data):
    return b"".join(word.to_bytes(4, "little") for word in tree(data, 0, ROOT))


assert blake3(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
