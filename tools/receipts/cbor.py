"""The part of CBOR (RFC 8949) that receipts use, in its core deterministic encoding; everything else is refused."""


class Refused(Exception):
    pass


class Tag:
    def __init__(self, number, value):
        self.number, self.value = number, value


def head(data, at):
    if at >= len(data):
        raise Refused("it ends too early")
    major, short = data[at] >> 5, data[at] & 31
    at += 1
    if short < 24:
        return major, short, at
    if short > 27:
        raise Refused("an indefinite length or a reserved one")
    size = 1 << short - 24
    if at + size > len(data):
        raise Refused("it ends too early")
    number = int.from_bytes(data[at : at + size], "big")
    if number < (24 if size == 1 else 1 << 4 * size):
        raise Refused("a number that could be shorter")
    return major, number, at + size


def item(data, at):
    if at < len(data) and data[at] in (0xF4, 0xF5):
        return data[at] == 0xF5, at + 1
    major, number, at = head(data, at)
    if major == 0:
        return number, at
    if major == 1:
        return -1 - number, at
    if major in (2, 3):
        if at + number > len(data):
            raise Refused("it ends too early")
        value = bytes(data[at : at + number])
        try:
            return (value if major == 2 else value.decode()), at + number
        except UnicodeDecodeError:
            raise Refused("text that is not UTF-8") from None
    if major == 4:
        values = []
        for _ in range(number):
            value, at = item(data, at)
            values.append(value)
        return values, at
    if major == 5:
        values, last = {}, None
        for _ in range(number):
            key, at = item(data, at)
            if type(key) is not int or key < 0 or last is not None and key <= last:
                raise Refused("keys that do not ascend")
            last = key
            values[key], at = item(data, at)
        return values, at
    if major == 6:
        value, at = item(data, at)
        return Tag(number, value), at
    raise Refused("a kind that receipts do not use")


def read(data):
    value, at = item(data, 0)
    if at != len(data):
        raise Refused("bytes follow its end")
    return value


def write(value):
    def head_of(major, number):
        if number < 24:
            return bytes([major << 5 | number])
        size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
        return bytes([major << 5 | 23 + size.bit_length()]) + number.to_bytes(size, "big")

    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if isinstance(value, int):
        return head_of(0, value) if value >= 0 else head_of(1, -1 - value)
    if isinstance(value, bytes):
        return head_of(2, len(value)) + value
    if isinstance(value, str):
        return head_of(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return head_of(4, len(value)) + b"".join(map(write, value))
    return head_of(5, len(value)) + b"".join(write(key) + write(value[key]) for key in sorted(value))
