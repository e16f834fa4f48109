"""Hostile builds: archives, Dockerfiles and parameters, each with the rule that refuses it."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

BASE = "trimtab.local/worker:1"
#: An image that the policy doesn't admit.
FOREIGN = "registry.example.com/evil:1"
BLOCK = 512


@dataclass(frozen=True)
class HostileBuild:
    """A request to build, and the rule that refuses it."""

    name: str
    rule: str
    archive: bytes = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict)


def entry(name: str | bytes, content: bytes = b"", kind: bytes = b"0", **more: object) -> bytes:
    """Return an entry of an archive, as GNU tar writes it, however strange its name is."""
    raw = name.encode() if isinstance(name, str) else name
    info = tarfile.TarInfo(raw.decode("utf-8", "surrogateescape"))
    info.type, info.size = kind, len(content)
    for member, value in more.items():
        setattr(info, member, value)
    head = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    return head + content + bytes(-len(content) % BLOCK)


def pax(**records: str) -> bytes:
    """Return an extended header."""
    text = b""
    for key, value in records.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        size = len(body) + len(str(len(body) + 3))
        size = len(str(size)) + len(body)
        text += str(size).encode() + body
    return entry("x", text, b"x")


def archive(*entries: bytes, dockerfile: str | bytes = f"FROM {BASE}\n") -> bytes:
    """Return a context with a Dockerfile and these entries."""
    text = dockerfile.encode() if isinstance(dockerfile, str) else dockerfile
    return b"".join((entry("Dockerfile", text), *entries, bytes(2 * BLOCK)))


def _with(block: bytes, at: int, value: bytes) -> bytes:
    """Return an entry with other bytes in its header, and the right checksum."""
    head = bytearray(block[:BLOCK])
    head[at : at + len(value)] = value
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\x00 " % sum(head)
    return bytes(head) + block[BLOCK:]


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    return entry(name, b"", kind, linkname=target)


def _contexts() -> Iterator[tuple[str, str, bytes]]:
    folder = entry("d/e", b"", tarfile.DIRTYPE)
    hard = tarfile.LNKTYPE
    yield "a link to an absolute path", "build.context-link", archive(_link("l", "/etc/shadow"))
    yield "a link upwards", "build.context-link", archive(_link("l", "../x"))
    yield (
        "a link upwards from a folder",
        "build.context-link",
        archive(folder, _link("d/l", "../../x")),
    )
    up = (folder, entry("top", b"", tarfile.DIRTYPE), _link("d/e/a", "../../top"))
    yield (
        "a link that leads out by another",
        ("build.context-link"),
        archive(*up, _link("l", "d/e/a/../../x")),
    )
    yield "a loop of links", "build.context-link", archive(_link("a", "b"), _link("b", "a"))
    yield "an empty link", "build.context-link", archive(_link("l", ""))
    yield "a hard link upwards", "build.context-name", archive(_link("l", "../../etc/shadow", hard))
    yield "a hard link to the host", "build.context-name", archive(_link("l", "/etc/shadow", hard))
    yield "a hard link to nothing", "build.context-link", archive(_link("l", "gone", hard))
    yield (
        "a hard link to a link",
        ("build.context-link"),
        archive(_link("a", "Dockerfile"), _link("l", "a", hard)),
    )
    yield "a name upwards", "build.context-name", archive(entry("../x", b"x"))
    yield "a name upwards from a folder", "build.context-name", archive(entry("a/../../x", b"x"))
    yield "an absolute name", "build.context-name", archive(entry("/etc/x", b"x"))
    yield (
        "a file below a link",
        ("build.context-name"),
        archive(_link("l", "."), entry("l/x", b"x")),
    )
    yield "a file below a file", "build.context-name", archive(entry("Dockerfile/x", b"x"))
    for what, kind in (
        ("a character device", tarfile.CHRTYPE),
        ("a block device", tarfile.BLKTYPE),
        ("a named pipe", tarfile.FIFOTYPE),
        ("a contiguous file", tarfile.CONTTYPE),
        ("a sparse file", tarfile.GNUTYPE_SPARSE),
        ("an unknown type", b"Z"),
    ):
        yield what, "build.context-entry", archive(entry("x", b"", kind))
    for what, key in (
        ("a sparse file of pax", "GNU__sparse__major"),
        ("a capability of a file", "SCHILY__xattr__security__capability"),
        ("an unknown record", "vendor__x"),
    ):
        yield what, "build.context-entry", archive(pax(**{key: "1"}), entry("x", b"x"))
    yield "a huge pax header", "build.context", archive(pax(path="x" * 70_000), entry("x", b"x"))
    yield "a malformed pax header", "build.context", archive(entry("x", b"99 a=b\n", b"x"))
    twice = pax(path="a")[BLOCK : BLOCK + 10] * 2
    yield "two names in one header", "build.context", archive(entry("x", twice, b"x"), entry("x"))
    yield (
        "a name for all entries",
        ("build.context-entry"),
        archive(_with(pax(path="../x"), 156, b"g"), entry("x")),
    )
    yield "a name that isn't UTF-8", "build.context-name", archive(entry(b"\xff\xfe", b"x"))
    yield "a name with a line break", "build.context-name", archive(entry("a\nb", b"x"))
    yield "a long name", "build.context-name", archive(entry("x" * 256, b"x"))
    yield "a long path", "build.context-name", archive(entry("x/" * 3000 + "x", b"x"))
    yield "a whiteout", "build.context-name", archive(entry("etc/.wh.passwd", b""))
    yield "an opaque whiteout", "build.context-name", archive(entry("etc/.wh..wh..opq", b""))
    yield "a file twice", "build.context", archive(entry("x", b"1"), entry("./x", b"2"))
    yield "a file over a folder", "build.context", archive(folder, entry("d/e", b"2"))
    yield "too many entries", "build.context-size", archive(*(entry(f"f{n}") for n in range(60)))
    yield "too many bytes", "build.context-size", archive(entry("x", bytes(5 << 20)))
    yield (
        "a bomb of hard links",
        ("build.context-size"),
        archive(entry("x", bytes(1 << 20)), *(_link(f"l{n}", "x", hard) for n in range(5))),
    )
    yield "another compression", "build.context", bz2.compress(archive())
    yield "no archive", "build.context", b"FROM scratch\n" * 100
    yield "an archive that breaks off", "build.context", archive()[: -2 * BLOCK]
    yield "an archive in an archive", "build.context", archive() + archive()
    yield "a wrong checksum", "build.context", b"x" + archive()[1:]
    old = _with(entry("x", b"x"), 257, bytes(8))
    yield "a header without a form", "build.context", archive(old)
    yield (
        "a size beyond the archive",
        ("build.context-size"),
        archive(_with(entry("x"), 124, b"77777777777\x00")),
    )
    yield "a negative size", "build.context", archive(_with(entry("x"), 124, b"\xff" * 12))
    yield (
        "a folder with a content",
        ("build.context"),
        archive(entry("d", b"x" * BLOCK, tarfile.DIRTYPE)),
    )
    yield "a Dockerfile of bytes", "build.dockerfile", archive(dockerfile=b"FROM \xff\n")


def _dockerfiles() -> Iterator[tuple[str, str, str]]:
    yield "FROM", "image.not-allowed", f"FROM {FOREIGN}"
    yield "from", "image.not-allowed", f"from {FOREIGN}"
    yield "FROM over lines", "image.not-allowed", f"FROM \\\n# a comment\n  {FOREIGN}"
    yield "FROM with another escape", "image.not-allowed", f"# escape=`\nFROM `\n{FOREIGN}"
    yield "FROM by ARG", "image.not-allowed", f"ARG I={FOREIGN}\nFROM $I"
    yield "FROM by a default", "image.not-allowed", f"FROM ${{I:-{FOREIGN}}}"
    yield "FROM by another", "image.not-allowed", f"ARG J=1\nFROM ${{J:+{FOREIGN}}}"
    yield "FROM with a platform", "image.not-allowed", f"FROM --platform=linux/amd64 {FOREIGN}"
    yield "FROM of a registry's name", "image.not-allowed", "FROM alpine"
    yield (
        "a second stage",
        "image.not-allowed",
        f"FROM {FOREIGN} AS a\nFROM {BASE}\nCOPY --from=a / /",
    )
    yield "COPY of an image", "image.not-allowed", f"FROM {BASE}\nCOPY --from={FOREIGN} / /"
    # Engines read the flags of a line byte by byte, and take a byte of "à" for a blank.
    hidden = f"COPY --chown=0\u00e0--from={FOREIGN} / /"
    yield "COPY of an image behind a half letter", "build.flag", f"FROM {BASE}\n{hidden}"
    yield "FROM by an id", "image.invalid", "FROM sha256:" + "0" * 64
    yield "FROM by a short id", "image.invalid", "FROM 0123456789ab"
    yield "a mount of an image", "build.mount", f"FROM {BASE}\nRUN --mount=from={FOREIGN} true"
    yield "a secret", "build.mount", f"FROM {BASE}\nRUN --mount=type=secret,id=x true"
    yield "the host's network", "build.flag", f"FROM {BASE}\nRUN --network=host true"
    yield "no sandbox", "build.flag", f"FROM {BASE}\nRUN --security=insecure true"
    yield "ADD of a URL", "build.add-url", f"FROM {BASE}\nADD http://example.com/x /x"
    yield "ADD of a repository", "build.add-url", f"FROM {BASE}\nADD git@example.com:x/y.git /x"
    # Engines read a list up to its end, and nothing behind it.
    yield "ADD of a URL in half a list", "build.syntax", f'FROM {BASE}\nADD ["http://x", "/"]x'
    yield "another frontend", "build.syntax", f"# syntax=example.com/evil\nFROM {BASE}"
    yield "no FROM", "build.syntax", "RUN true"
    yield "an unknown instruction", "build.syntax", f"FROM {BASE}\nEVAL x"


def _parameters() -> Iterator[tuple[str, str, dict[str, str]]]:
    yield "BuildKit", "build.builder", {"version": "2"}
    yield "a context of the engine's", "build.remote", {"remote": "http://example.com/x.tar"}
    yield "the host's network", "build.network", {"networkmode": "host"}
    yield "the network of a container", "build.network", {"networkmode": "container:x"}
    yield "a network that isn't granted", "build.network", {"networkmode": "bridge"}
    yield "too much memory", "build.limit", {"memory": str(1 << 40)}
    yield "a large /dev/shm", "build.limit", {"shmsize": str(1 << 40)}
    yield "processors", "build.limit", {"cpusetcpus": "0"}
    yield "no name", "build.tag", {"t": ""}
    yield "a name by digest", "build.tag", {"t": "trimtab.local/x@sha256:" + "0" * 64}
    yield "a name that isn't admitted", "image.not-allowed", {"t": FOREIGN}
    yield "a label of the gate's", "build.label", {"labels": '{"io.trimtab.owner":"x"}'}
    yield "another label's spelling", "build.label", {"labels": '{"IO.Trimtab.Managed":"1"}'}
    yield "a Dockerfile elsewhere", "build.dockerfile", {"dockerfile": "../Dockerfile"}
    yield "an absolute Dockerfile", "build.dockerfile", {"dockerfile": "/etc/passwd"}
    yield "a missing Dockerfile", "build.dockerfile", {"dockerfile": "gone"}
    yield "arguments that are no texts", "query.invalid", {"buildargs": '{"A":1}'}
    yield "a stage that isn't there", "build.target", {"target": "gone"}
    for name, value in (
        ("cachefrom", '["trimtab.local/web:1"]'),
        ("cgroupparent", "/system.slice"),
        ("memswap", "1"),
        ("extrahosts", "x:1.2.3.4"),
        ("securityopt", '["seccomp=unconfined"]'),
        ("ulimits", '[{"Name":"nofile","Soft":1,"Hard":1}]'),
        ("squash", "1"),
        ("outputs", '[{"type":"local"}]'),
        ("session", "x"),
    ):
        yield f"the parameter {name}", "query.invalid", {name: value}


def hostile_builds() -> Iterator[HostileBuild]:
    """Yield all builds that are refused before anything is built."""
    for name, rule, packed in _contexts():
        yield HostileBuild(f"context: {name}", rule, packed)
    for name, rule, text in _dockerfiles():
        yield HostileBuild(f"Dockerfile: {name}", rule, archive(dockerfile=text + "\n"))
    for name, rule, query in _parameters():
        yield HostileBuild(f"parameter: {name}", rule, archive(), query)
    small = gzip.compress(archive())
    for name, rule, sent in (
        ("a bomb", "build.context-size", gzip.compress(bytes(64 << 20))),
        ("a bomb in two layers", "build.context", gzip.compress(gzip.compress(bytes(64 << 20)))),
        ("an end that is missing", "build.context", small[:-6]),
        ("a second part", "build.context", small + small),
        ("damage", "build.context", small[:20] + b"x" + small[21:]),
    ):
        yield HostileBuild(f"compressed: {name}", rule, sent)
    for what, begin in (("a tar archive", entry("x")), ("zstd", b"\x50\x2a\x4d\x18" + bytes(9))):
        yield HostileBuild(
            f"{what} by ADD",
            "build.add-archive",
            archive(entry("x", begin), dockerfile=f"FROM {BASE}\nADD x /\n"),
        )
    packed = gzip.compress(bytes(1 << 20))
    for source in ("x.gz", "x*", "$X", '["x.gz"', "./x.gz"):
        last = ', "/"]' if source.startswith("[") else " /"
        text = f"FROM {BASE}\nADD {source}{last}\n"
        yield HostileBuild(
            f"an archive by ADD {source}",
            "build.add-archive",
            archive(entry("x.gz", packed), dockerfile=text),
        )
    linked = io.BytesIO()
    with tarfile.open(fileobj=linked, mode="w") as written:
        info = tarfile.TarInfo("Dockerfile")
        info.type, info.linkname = tarfile.SYMTYPE, "other"
        written.addfile(info)
    yield HostileBuild("a Dockerfile that is a link", "build.dockerfile", linked.getvalue())
