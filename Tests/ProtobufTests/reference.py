#!/usr/bin/env python3
"""Compares our protobuf codec with Python's, which is Google's own.

    swift build --build-tests
    python3 -m venv .venv && .venv/bin/pip install protobuf
    .venv/bin/python Tests/ProtobufTests/reference.py [--seed N] [--count N] [--build-path DIR]

Random messages with every kind of field go from Python to Swift (ReferenceTests.swift) and back, and the other way
round; also through an older schema, which has to keep what it doesn't know; merged in pairs; and with bytes changed,
which both have to refuse or to read alike. Takes a few seconds; exits 1 with the first differences on stderr.
"""

import argparse
import math
import os
import random
import struct
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
# No letters that combine: Swift compares strings, and so map keys, by Unicode's canonical equivalence.
LETTERS = "aZ \0\x7f\x80ß中\u07ff\u0800\uffff😀\U0010ffff"
EDGES = [0, 1, 127, 128, 16383, 16384, 2**31 - 1, 2**31, 2**32 - 1, 2**35, 2**56 - 1, 2**56, 2**63 - 1]


def schema(directory):
    """The message classes of everything.proto, without generated code."""
    protos = os.path.join(HERE, "Protos")
    output = os.path.join(directory, "descriptors")
    subprocess.run(["protoc", "-I", protos, "-o", output, "test/v1/everything.proto"], check=True)
    with open(output, "rb") as file:
        files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    names = ["Everything", "Older", "Nothing"]
    return [message_factory.GetMessageClass(pool.FindMessageTypeByName("test.v1." + name)) for name in names]


class Author:
    """Fills messages at random."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def integer(self, bits, signed):
        value = self.random.choice(EDGES) if self.random.random() < 0.5 else self.random.getrandbits(64)
        value >>= self.random.randrange(8)
        value &= 2**bits - 1
        if signed and (self.random.random() < 0.5 or value >= 2 ** (bits - 1)):
            value = -(value & (2 ** (bits - 1) - 1)) - self.random.randrange(2)
        return value

    def number(self, single):
        value = self.random.choice([0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 1e-40, self.random.uniform(-1e9, 1e9)])
        return struct.unpack("<f", struct.pack("<f", value))[0] if single else value

    def value(self, field, depth):
        kind = field.type
        if kind == field.TYPE_MESSAGE:
            raise AssertionError("messages are filled in place")
        if kind in (field.TYPE_INT32, field.TYPE_SINT32, field.TYPE_SFIXED32):
            return self.integer(32, True)
        if kind in (field.TYPE_INT64, field.TYPE_SINT64, field.TYPE_SFIXED64):
            return self.integer(64, True)
        if kind in (field.TYPE_UINT32, field.TYPE_FIXED32):
            return self.integer(32, False)
        if kind in (field.TYPE_UINT64, field.TYPE_FIXED64):
            return self.integer(64, False)
        if kind == field.TYPE_BOOL:
            return self.random.random() < 0.5
        if kind in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
            return self.number(kind == field.TYPE_FLOAT)
        if kind == field.TYPE_ENUM:
            return self.random.choice([0, 1, 2, -7, 2**31 - 1, self.integer(32, True)])
        length = self.random.choice([0, 1, 5, 15, 16, 40, 127, 128, 300])
        if kind == field.TYPE_STRING:
            return "".join(self.random.choice(LETTERS) for _ in range(length))
        return self.random.randbytes(length)

    def fill(self, message, depth=0):
        share = self.random.choice([0.02, 0.1, 0.5, 0.9]) if depth == 0 else 0.08 / depth
        for field in message.DESCRIPTOR.fields:
            if self.random.random() >= share:
                continue
            is_message = field.type == field.TYPE_MESSAGE
            if is_message and field.message_type.GetOptions().map_entry:
                self.fill_map(getattr(message, field.name), field.message_type, depth)
            elif field.is_repeated:
                values = getattr(message, field.name)
                for _ in range(self.random.choice([0, 1, 2, 5, 70])):
                    if is_message:
                        if len(values) < 3:
                            self.fill(values.add(), depth + 1)
                    else:
                        values.append(self.value(field, depth))
            elif is_message:
                inner = getattr(message, field.name)
                inner.SetInParent()
                self.fill(inner, depth + 1)
            else:
                setattr(message, field.name, self.value(field, depth))
        return message

    def fill_map(self, entries, entry, depth):
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for _ in range(self.random.choice([1, 2, 5])):
            name = self.value(key, depth)
            if value.type == value.TYPE_MESSAGE:
                self.fill(entries[name], depth + 1)
            else:
                entries[name] = self.value(value, depth)

    def mutant(self, content):
        content = bytearray(content)
        for _ in range(self.random.randint(1, 3)):
            place = self.random.randrange(len(content))
            choice = self.random.random()
            if choice < 0.6:
                content[place] = self.random.randrange(256)
            elif choice < 0.8:
                del content[place : place + self.random.randint(1, 4)]
            else:
                content[place:place] = self.random.randbytes(self.random.randint(1, 12))
            content = content or bytearray(b"\0")
        return bytes(content)


def store(directory, name, messages):
    with open(os.path.join(directory, name), "wb") as file:
        for message in messages:
            file.write(struct.pack(">I", len(message)) + message)


def load(directory, name):
    messages = []
    with open(os.path.join(directory, name), "rb") as file:
        while header := file.read(4):
            messages.append(file.read(struct.unpack(">I", header)[0]))
    return messages


def parsed(kind, content):
    """A message, or None for what Python refuses."""
    try:
        return kind.FromString(content)
    except DecodeError:
        return None


def canonical(message):
    return message.SerializeToString(deterministic=True)


def has_wide_map(message):
    """Whether a map somewhere inside has several entries: their order on the wire differs between implementations."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            if len(value) > 1:
                return True
            if field.message_type.fields_by_name["value"].type != field.TYPE_MESSAGE:
                continue
            inner = value.values()
        else:
            inner = value if field.is_repeated else [value]
        if any(map(has_wide_map, inner)):
            return True
    return False


def has_unknown(message):
    known = type(message).FromString(canonical(message))
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


class Report:
    def __init__(self):
        self.differences = 0
        self.exact = 0

    def same_message(self, what, index, expected, found):
        """The bytes of `found` are those of the message `expected`; with wide maps, at least as many and as good."""
        if has_wide_map(expected):
            again = parsed(type(expected), found)
            self.same(what + "'s length", index, expected.ByteSize(), len(found))
            self.same(what, index, canonical(expected), again and canonical(again))
        else:
            self.exact += 1
            self.same(what, index, canonical(expected), found)

    def same(self, what, index, expected, found):
        if expected == found:
            return
        self.differences += 1
        if self.differences <= 10:
            print(f"{what} {index}: expected {expected!r:.600}\n  found {found!r:.600}", file=sys.stderr)


def compare(directory, sent, mutants, kinds):
    everything, older, nothing = kinds
    report = Report()
    for index, (message, found) in enumerate(zip(sent, load(directory, "everything"), strict=True)):
        report.same_message("everything", index, message, found)
    for kind, name in [(older, "older"), (nothing, "nothing")]:
        for index, (message, found) in enumerate(zip(sent, load(directory, name), strict=True)):
            report.same_message(name, index, kind.FromString(canonical(message)), found)
            # What the older schema doesn't know is still there.
            again = parsed(everything, found)
            report.same(name + "'s unknown fields", index, canonical(message), again and canonical(again))
    for index, (first, second, found) in enumerate(zip(sent, sent[1:], load(directory, "merged"))):
        both = everything.FromString(canonical(first))
        both.MergeFromString(canonical(second))
        report.same_message("merged", index, both, found)
    accepted = 0
    for index, (mutant, verdict) in enumerate(zip(mutants, load(directory, "verdicts"), strict=True)):
        message = parsed(everything, mutant)
        accepted += message is not None
        # Python takes field number 0 inside an unknown group; we don't.
        if verdict or message is None or not has_unknown(message):
            report.same(f"mutant {mutant.hex()[:400]}", index, message is not None, verdict != b"")
        # A map entry with unknown fields inside is none of our business: Python keeps it as an unknown field of the
        # whole, others drop what is unknown in it.
        if message is not None and verdict and not has_unknown(message):
            report.same_message(f"content of mutant {mutant.hex()[:400]}", index, message, verdict[1:])
    for index, content in enumerate(load(directory, "swift")):
        message = parsed(everything, content)
        if message is None:
            report.same("swift", index, "a message", content)
        else:
            report.same_message("swift", index, message, content)
    print(
        f"{len(sent)} messages, {len(mutants)} mutants ({accepted} accepted), {report.exact} compared byte by byte,"
        f" {report.differences} differences"
    )
    return report.differences


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--count", type=int, default=1000, help="how many messages")
    arguments.add_argument("--build-path", help="swift's --scratch-path")
    options = arguments.parse_args()
    author = Author(options.seed)
    with tempfile.TemporaryDirectory() as directory:
        kinds = schema(directory)
        sent = [author.fill(kinds[0]()) for _ in range(options.count)]
        contents = [canonical(message) for message in sent]
        sources = [content for content in contents if 0 < len(content) < 3000]
        mutants = [author.mutant(author.random.choice(sources)) for _ in range(options.count * 4)]
        store(directory, "messages", contents)
        store(directory, "mutants", mutants)
        command = ["swift", "test", "--skip-build", "--filter", "ReferenceTests"]
        if options.build_path:
            command += ["--scratch-path", options.build_path]
        environment = dict(os.environ, FLEETPUSH_REFERENCE=directory)
        run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        if run.returncode != 0 or not os.path.exists(os.path.join(directory, "swift")):
            sys.exit(f"{run.stdout}{run.stderr}\nthe Swift side failed")
        sys.exit(1 if compare(directory, sent, mutants, kinds) else 0)


if __name__ == "__main__":
    main()
