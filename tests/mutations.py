"""Valid files changed at random: bytes that were flipped, cut, doubled; values replaced by ones that nobody expects."""

import copy
import os
import random

# how many changed files a test looks at; more by BAYESBINN_MUTATIONS=5000 pytest …
COUNT = int(os.environ.get("BAYESBINN_MUTATIONS", "300"))

SCRAPS = [
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\x1b[2J",
    b"\r",
    b"\xe2\x80\xa8",
    b"[" * 200,
    b"{",
    b"}",
    b"]",
    b'"',
    b"'",
    b": ",
    b"- ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!int ",
    b"!!python/object:os.system ",
    b"\t",
    b"#",
    b"%",
    b"\\ud800",
    b"1e999",
    b"-" * 3000,
    b"9" * 5000,
    b".nan",
    b"../",
    b"null",
]


def deep(levels: int) -> list:
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


STRANGE = [
    None,
    True,
    0,
    -1,
    2**70,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "x" * 5000,
    "../../outside",
    "/etc/passwd",
    "~/file",
    "C:\\file",
    "a\nb",
    "\x1b[2J\x07",
    "\u202etxt",
    "zero\0byte",
    "{epochs}" * 50,
    "*" * 60 + "b",
    [],
    {},
    [None],
    ["a", 1],
    {"a": {"b": [1, {"c": None}]}},
    deep(20),
    deep(80),
    ["y"] * 3000,
]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    "One to four changes of a file's bytes"
    for _ in range(rng.randint(1, 4)):
        if not data:
            return rng.choice(SCRAPS)
        i = rng.randrange(len(data))
        j = min(len(data), i + rng.choice([1, 1, 2, 8, 100, 2000]))
        what = rng.choice(["flip", "drop", "double", "insert", "truncate"])
        if what == "flip":
            data = data[:i] + bytes([rng.randrange(256)]) + data[i + 1 :]
        elif what == "drop":
            data = data[:i] + data[j:]
        elif what == "double":
            data = data[:j] + data[i:]
        elif what == "insert":
            data = data[:i] + rng.choice(SCRAPS) + data[i:]
        else:
            data = data[:i]
    return data


def _places(value: object) -> list:
    "(container, key) of every value inside"
    found, waiting = [], [value]
    while waiting:
        part = waiting.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else []
        for key in keys:
            found.append((part, key))
            waiting.append(part[key])
    return found


def mutated_structure(value: object, rng: random.Random) -> object:
    "One to three changes of plain data: a value replaced, removed, doubled, or a key renamed"
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = _places(value)
        if not places:
            return rng.choice(STRANGE)
        container, key = rng.choice(places)
        what = rng.choice(["replace", "replace", "replace", "remove", "double", "rename", "swap"])
        if what == "replace":
            container[key] = copy.deepcopy(rng.choice(STRANGE))
        elif what == "remove":
            del container[key]
        elif what == "double" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif what == "rename" and isinstance(container, dict):
            container[rng.choice(["", "x" * 300, "row", "tags", "\x1b[2J", 5, None, True])] = container.pop(key)
        else:
            other, other_key = rng.choice(places)
            container[key] = copy.deepcopy(other[other_key]) if _holds(other, other_key) else None
    return value


def _holds(container: object, key: object) -> bool:
    return key in container if isinstance(container, dict) else key < len(container)
