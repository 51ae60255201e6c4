"""Asks a running server for answers to random JSON schemas and checks each with an independent validator.

    schemas.py http://127.0.0.1:PORT/v1 [--count 1000] [--seed 1] [--explode]

Needs `pip install jsonschema`. Every answer that came to its end must be valid; schemas the server refuses are counted
and shown. With --explode: how long a plain stream waits between tokens while schemas that explode are asked for.
"""

import argparse
import concurrent.futures
import json
import random
import re
import time
import urllib.error
import urllib.request

import jsonschema

PATTERNS = ["^[a-z]{2,6}$", "^[A-Z]{3}-[0-9]{4}$", "^(red|blue) [0-9]+$", "^[^ ]{1,5}$", "^\\+?[0-9 ]{6,12}$"]
WORDS = ["red", "blue", "kettle", "lamp", "Graz", "größe", "a b", "x\"y", "tab\t", "漢字", ""]


class Schemas:
    """Random schemas, each the same for the same seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def whole(self):
        definitions = {name: self.any(2) for name in self.random.sample(["one", "two", "three"], 2)}
        self.names = list(definitions)
        schema = self.object(3) if self.random.random() < 0.8 else self.any(3)
        if '"$ref"' in json.dumps(schema):
            schema["$defs"] = definitions
        self.names = []
        return schema

    names = []

    def any(self, depth):
        kinds = [self.string, self.integer, self.number, self.constant, self.enum, self.boolean]
        if depth > 0:
            kinds += [self.object, self.array, self.any_of, self.tuple] * 2
            if self.names:
                kinds += [self.reference] * 2
        return self.random.choice(kinds)(depth - 1)

    def string(self, _):
        kind = self.random.randrange(4)
        if kind == 0:
            return {"type": "string", "pattern": self.random.choice(PATTERNS)}
        if kind == 1:
            low = self.random.randrange(4)
            return {"type": "string", "minLength": low, "maxLength": low + self.random.randrange(10)}
        if kind == 2:
            return self.random.choice([*({"type": "string", "format": name} for name in ("date", "uuid", "ipv4")),
                                       {"type": "string", "format": "email", "maxLength": 30},
                                       {"type": "string", "format": "time", "maxLength": 24}])
        return {"type": "string", "maxLength": 20}

    def integer(self, _):
        low = self.random.randrange(-1000, 1000)
        return self.random.choice([
            {"type": "integer", "minimum": low, "maximum": low + self.random.randrange(500)},
            {"type": "integer", "exclusiveMinimum": low, "maximum": low + 5000},
            {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
        ])

    def number(self, _):
        low = round(self.random.uniform(-10, 10), 2)
        high = round(low + self.random.uniform(0.5, 100), 2)
        return self.random.choice([
            {"type": "number", "minimum": low, "maximum": high},
            {"type": "number", "exclusiveMinimum": low, "maximum": high + 1},
            # What is checked in binary is a multiple in binary.
            {"type": "number", "minimum": low, "maximum": high, "multipleOf": 0.25},
        ])

    def constant(self, _):
        return {"const": self.random.choice([1, -2.5, True, None, "red", [1, "x"], {"a": [None]}])}

    def enum(self, _):
        return {"enum": self.random.sample([*WORDS, 1, 2.5, None, False], self.random.randrange(1, 6))}

    def boolean(self, _):
        return {"type": self.random.choice(["boolean", "null"])}

    def array(self, depth):
        low = self.random.randrange(3)
        return {"type": "array", "items": self.any(depth), "minItems": low,
                "maxItems": low + self.random.randrange(3)}

    def tuple(self, depth):
        items = [self.any(depth) for _ in range(self.random.randrange(1, 4))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def object(self, depth):
        names = self.random.sample(["id", "name", "größe", "a b", "items", "x\"y", "note", "kind"], self.random.randrange(1, 5))
        schema = {"type": "object", "properties": {name: self.any(depth) for name in names}}
        more = self.random.randrange(8)
        if more < 5:
            schema["required"] = [name for name in names if self.random.random() < 0.7]
            schema["additionalProperties"] = False
            return schema
        # Further properties, a few, so that answers end: bounds on their number want all the named ones.
        schema["required"], schema["maxProperties"] = names, len(names) + self.random.randrange(3)
        if more < 7:
            schema["patternProperties"] = {"^x_[a-z]{1,6}$": self.any(0)}
            schema["additionalProperties"] = False
        else:
            schema["additionalProperties"] = {"type": "integer", "minimum": 0, "maximum": 99}
        return schema

    def any_of(self, depth):
        return {"anyOf": [self.any(depth) for _ in range(self.random.randrange(2, 4))]}

    def reference(self, _):
        return {"$ref": "#/$defs/" + self.random.choice(self.names)}


def post(url, body, stream=False):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    response = urllib.request.urlopen(request, timeout=300)
    return response if stream else json.load(response)


def ask(url, model, number, schema):
    """What came of one schema: valid, length, refused, and the reason or answer."""
    form = {"type": "json_schema", "json_schema": {"name": "schema", "schema": schema}}
    body = {"model": model, "messages": [{"role": "user", "content": f"Order {number}, please."}], "seed": number,
            "temperature": 1.0, "frequency_penalty": 1.5, "max_tokens": 1500, "response_format": form}
    try:
        choice = post(url + "/chat/completions", body)["choices"][0]
    except urllib.error.HTTPError as error:
        return "refused", json.load(error)["error"]["message"]
    if choice["finish_reason"] != "stop":
        return "length", choice["message"]["content"]
    value = json.loads(choice["message"]["content"])
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER).validate(value)
    return "valid", choice["message"]["content"]


def corpus(options, model):
    schemas = Schemas(options.seed)
    schemas = [schemas.whole() for _ in range(options.count)]
    start, outcomes, reasons = time.time(), {"valid": 0, "length": 0, "refused": 0, "invalid": 0}, {}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, options.url, model, number, schema) for number, schema in enumerate(schemas)]
        for number, future in enumerate(asked):
            try:
                outcome, what = future.result()
            except (json.JSONDecodeError, jsonschema.ValidationError) as error:
                outcome, what = "invalid", f"schema {number}: {json.dumps(schemas[number])}\n{error}"
                print(what)
            outcomes[outcome] += 1
            if outcome == "refused":
                reason = re.sub(r"[0-9]+", "N", what)
                reasons[reason] = reasons.get(reason, 0) + 1
            if outcome == "length" and options.show_cut:
                print(f"cut: {json.dumps(schemas[number])}\n  {what[-300:]!r}")
    print(f"{options.count} schemas in {time.time() - start:.0f} s: {outcomes}")
    for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1])[:10]:
        print(f"  refused {count}: {reason}")
    assert outcomes["invalid"] == 0, "answers that are complete and not valid"
    assert outcomes["valid"] > 0.8 * options.count, "too few answers were complete"


def explosions():
    """Schemas, regular expressions and grammars that are much larger than they look."""
    wide = {"type": "object", "properties": {f"key{i}": {"type": "string"} for i in range(3000)}}
    nested = {"type": "string"}
    for _ in range(40):
        nested = {"anyOf": [nested, {"type": "array", "items": nested, "maxItems": 9}]} if len(json.dumps(nested)) < 20000 else nested
    long = {"type": "array", "items": {"type": "string", "pattern": "^(a|b|ab|ba){50,500}c?$"}, "minItems": 50}
    recursive = {"$ref": "#/$defs/x", "$defs": {"x": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/x"}},
                 {"type": "object", "additionalProperties": {"$ref": "#/$defs/x"}}, {"type": "string"}]}}}
    schemas = [{"type": "json_schema", "json_schema": {"name": "x", "schema": s}} for s in (wide, nested, long, recursive)]
    return schemas + [{"type": "regex", "pattern": p} for p in (
        "(a{1,900}){1,900}(b|c|bc){1,900}", "(.*a){30}", "((a|b)*c(a|b)*d){100}", "[a-z]*[^x]{1000}[a-z]*")]


def gaps(url, model, rounds):
    """Seconds between the events of plain streams."""
    found = []
    for number in range(rounds):
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": True, "seed": number,
                "ignore_eos": True, "max_tokens": 300}
        latest = None
        for line in post(url + "/chat/completions", body, stream=True):
            if line.startswith(b"data: {"):
                now = time.perf_counter()
                found += [now - latest] if latest else []
                latest = now
    return sorted(found)


def explode(options, model):
    def bother(stop):
        number, counts = 0, {"answered": 0, "refused": 0}
        while not stop:
            form = explosions()[number % len(explosions())]
            number += 1
            # Each is new, so that none is found compiled.
            if "pattern" in form:
                form["pattern"] += f"{number}?"
            else:
                form["json_schema"]["schema"]["title"] = f"{number}"
            body = {"model": model, "messages": [{"role": "user", "content": "x"}], "max_tokens": 30,
                    "response_format": form}
            try:
                post(options.url + "/chat/completions", body)
                counts["answered"] += 1
            except urllib.error.HTTPError:
                counts["refused"] += 1
        return counts

    def tell(name, found):
        at = lambda share: 1000 * found[int(share * (len(found) - 1))]
        print(f"{name}: {len(found)} gaps, median {at(0.5):.2f} ms, p99 {at(0.99):.2f} ms, largest {at(1):.2f} ms")

    def companions(body):
        stop = []
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            others = [pool.submit(body, stop) for _ in range(2)]
            found = gaps(options.url, model, 6)
            stop.append(True)
            return found, [other.result() for other in others]

    def plainly(stop):
        while not stop:
            post(options.url + "/chat/completions", {"model": model, "max_tokens": 30, "messages": [{"role": "user", "content": "x"}]})

    gaps(options.url, model, 1)
    found, _ = companions(plainly)
    tell("beside two clients that ask plainly ", found)
    found, counts = companions(bother)
    tell("beside two clients with explosions  ", found)
    print("of the explosions:", counts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--explode", action="store_true")
    parser.add_argument("--show-cut", action="store_true", help="print schemas whose answers reached the most tokens")
    options = parser.parse_args()
    options.url = options.url.rstrip("/")
    model = json.load(urllib.request.urlopen(options.url + "/models"))["data"][0]["id"]
    (explode if options.explode else corpus)(options, model)


if __name__ == "__main__":
    main()
