import pytest

from controller.core.encoding.identifiers import (
    is_image_id,
    matches,
    parse_reference,
    without_credentials,
)

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker.io/library/alpine:3"),
        ("library/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/library/alpine", "docker.io/library/alpine:latest"),
        ("team/app", "docker.io/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("ghcr.io/a/b.c_d__e--f:V1.2-x_y", "ghcr.io/a/b.c_d__e--f:V1.2-x_y"),
        (f"ghcr.io/a/b@{DIGEST}", f"ghcr.io/a/b@{DIGEST}"),
        (f"ghcr.io/a/b:1@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}"),
        # Another port is another name, even the usual one.
        ("ghcr.io:443/a/b", "ghcr.io:443/a/b:latest"),
        # Hex digits are an id only without a host, a path or a tag.
        ("cafe:1", "docker.io/library/cafe:1"),
        ("library/cafe", "docker.io/library/cafe:latest"),
    ],
)
def test_a_reference_leaves_nothing_implicit(text, canonical):
    parsed = parse_reference(text)
    assert parsed.canonical == canonical
    assert parse_reference(canonical) == parsed, "the canonical form means itself"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4150",  # the start of an id
        "415069f4ee51",
        "a" * 64,
        DIGEST,
        "sha256:abc",
        "scratch",
        "ghcr.io/a/b:",
        "ghcr.io/a/b:a:b",
        "ghcr.io/a/b:.1",
        "ghcr.io/a/b:" + "x" * 129,
        "ghcr.io/a/b@",
        "ghcr.io/a/b@sha256:abc",
        f"ghcr.io/a/b@{DIGEST.upper()}",
        f"ghcr.io/a/b@{DIGEST}@{DIGEST}",
        f"ghcr.io/a/b@sha512:{'a' * 128}",
        "ghcr.io/a/../b",
        "ghcr.io/a/./b",
        "ghcr.io/a//b",
        "ghcr.io//a/b",
        "/a/b",
        "ghcr.io/",
        "ghcr.io/a/",
        "https://ghcr.io/a/b",
        "user@ghcr.io/a/b",
        "user:pass@ghcr.io/a/b",
        "GHCR.IO/a/b",
        "ghcr.io/A/b",
        "ghcr.io./a/b",
        ".ghcr.io/a/b",
        "-ghcr.io/a/b",
        "[::1]:5000/a",
        "ghcr.io/a/b\n",
        " ghcr.io/a/b",
        "ghcr.io/a b",
        "ghcr.io/a/b\0",
        "ghcr.io\uff0fa/b",  # a full-width slash
        "ghcr.\u0456o/a/b",  # a Cyrillic letter
        "ghcr.io/a\u200b/b",  # a space without width
        "ghcr.io/a/b-",
        "ghcr.io/a/-b",
        "ghcr.io/a/b___c",
        "ghcr.io/" + "a" * 255,
        "-v/:/h",
        "ghcr.io%2fa/b",
    ],
)
def test_what_only_resembles_a_reference_is_refused(text):
    with pytest.raises(ValueError):
        parse_reference(text)


@pytest.mark.parametrize(
    ("prefix", "text", "covered"),
    [
        ("ghcr.io/platformnetwork/", "ghcr.io/platformnetwork/web", True),
        ("ghcr.io/platformnetwork/", "ghcr.io/platformnetwork/team/sub/app:2", True),
        ("ghcr.io/platformnetwork/", "ghcr.io/platformnetwork", False),
        ("ghcr.io/platformnetwork/", "ghcr.io/platformnetworkevil/x", False),
        ("ghcr.io/platformnetwork/", "ghcr.io.evil.com/platformnetwork/x", False),
        ("ghcr.io/platformnetwork/", "ghcr.io:443/platformnetwork/x", False),
        ("ghcr.io/platformnetwork/", "evil.com/ghcr.io/platformnetwork/x", False),
        ("ghcr.io/platformnetwork/", "platformnetwork/x", False),
        ("ghcr.io/platformnetwork/web", "ghcr.io/platformnetwork/web:1", True),
        ("ghcr.io/platformnetwork/web", "ghcr.io/platformnetwork/web/x", False),
        ("ghcr.io/platformnetwork/web", "ghcr.io/platformnetwork/web2", False),
        ("docker.io/library/", "alpine", True),
    ],
)
def test_a_prefix_covers_whole_components(prefix, text, covered):
    assert matches(parse_reference(text), (prefix,)) is covered


def test_an_image_id_is_a_digest_and_nothing_else():
    assert is_image_id(DIGEST)
    assert not is_image_id(DIGEST[:-1])
    assert not is_image_id(DIGEST + "\n")
    assert not is_image_id(f"a@{DIGEST}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ghcr.io/a/b:1", "ghcr.io/a/b:1"),
        (f"ghcr.io/a/b:1@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}"),
        ("ghcr.io/a/b@sha256:abc", "ghcr.io/a/b@sha256:abc"),  # a digest that was cut
        ("user:pass@ghcr.io/a/b", "…@ghcr.io/a/b"),
        ("https://user:pa/s@s\n@ghcr.io/a/b", "…@ghcr.io/a/b"),
        (f"user:pass@ghcr.io/a/b@{DIGEST}", f"…@ghcr.io/a/b@{DIGEST}"),
        ("/v1.45/images/user%3Apass%40ghcr.io/a/b/json", "…@ghcr.io/a/b/json"),
        (f"/images/a@{DIGEST.replace(':', '%3A')}/json", f"/images/a@{DIGEST.replace(':', '%3A')}/json"),
        ("x" * 1_000_000, "x" * 1_000_000),
    ],
)  # fmt: skip
def test_what_stands_before_the_host_is_not_told(text, shown):
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "user:pass@ghcr.io/a/b",
        "https://user:pass@ghcr.io/a/b",
        "user:pass@ghcr.io/a b",
        "user:pass%40ghcr.io/a/b",
        "ghcr.io/user-pass%40x/b",
        f"user:pass@ghcr.io/a/b@{DIGEST}",
    ],
)
def test_why_something_is_no_reference_says_no_credentials(text):
    with pytest.raises(ValueError) as caught:
        parse_reference(text)
    assert "pass" not in str(caught.value)
    assert "…@" in str(caught.value)


def test_references_that_were_parsed_are_kept_in_bounds_and_other_texts_are_not():
    before = parse_reference("ghcr.io/kept/web:1")
    assert parse_reference("ghcr.io/kept/web:1") is before
    for number in range(2 * parse_reference.cache_parameters()["maxsize"]):
        parse_reference(f"ghcr.io/kept/web:{number}")
        for _ in range(2):
            with pytest.raises(ValueError, match="characters"):
                parse_reference(f"ghcr.io/kept web:{number}")
    known = parse_reference.cache_info()
    assert known.currsize == known.maxsize
