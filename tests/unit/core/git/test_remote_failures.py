"""Messages of git and ssh, as codes."""

from __future__ import annotations

import pytest

from controller.core.git.remote_failures import explain_failure


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ("fatal: Authentication failed for 'https://example.org/x/'", "source.credentials"),
        ("git@example.org: Permission denied (publickey).", "source.credentials"),
        ("fatal: could not read Password for 'https://git@x': terminal", "source.credentials"),
        (
            "fatal: unable to access 'https://x/': The requested URL returned error: 403",
            "source.credentials",
        ),
        ("Host key verification failed.\nfatal: Could not read from remote", "source.host-key"),
        (
            "No ED25519 host key is known for [127.0.0.1]:22.\nHost key verification failed.",
            "source.host-key",
        ),
        (
            "fatal: unable to access 'https://x/': SSL certificate problem: self-signed",
            "source.certificate",
        ),
        ("fatal: unable to access 'https://x/': Could not resolve host: x", "source.unreachable"),
        ("ssh: connect to host x port 22: Connection refused", "source.unreachable"),
        # A connection that breaks in the middle of a pack, early and late.
        (
            "error: RPC failed; curl 18 end of response with 669 bytes missing\nfatal: expected",
            "source.unreachable",
        ),
        (
            "fetch-pack: unexpected disconnect while reading\nfatal: protocol error: bad pack header",
            "source.unreachable",
        ),
        (
            "fatal: early EOF\nfatal: fetch-pack: invalid index-pack output",
            "source.unreachable",
        ),
        ("fatal: unable to access 'http://x/': Operation too slow. Less than", "source.slow"),
        ("ERROR: Repository not found.\nfatal: Could not read", "source.repository-missing"),
        ("fatal: '/x' does not appear to be a git repository", "source.repository-missing"),
        ("fatal: couldn't find remote ref refs/heads/x", "source.reference-missing"),
        (
            "error: object 12: hasDotgit: contains '.git'\nfatal: fsck error in packed object",
            "source.damaged",
        ),
        (
            "fatal: write error: No space left on device\nfatal: index-pack failed",
            "source.disk-full",
        ),
        (
            "remote: aborting due to possible repository corruption\nfatal: bad pack header",
            "source.damaged",
        ),
        ("error: index-pack died of signal 25", "source.too-large"),
        (
            "error: 1f^{commit}: expected commit type, but the object dereferences to tree type",
            "source.object",
        ),
        ("fatal: mismatched algorithms: client sha1; server sha256", "source.protocol"),
        ("fatal: detected dubious ownership in repository at '/x'", "source.owner"),
        ("fatal: transport 'ext' not allowed", "source.protocol"),
        ("fatal: something new", "source.git"),
        ("", "source.git"),
    ],
)
def test_a_failure_has_a_code(errors: str, code: str) -> None:
    why = explain_failure(errors, exit_code=128)
    assert why.code == code
    assert why.message
    assert why.remedy


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (
            "error: object 12: hasDotgit: contains '.git'\nfatal: fsck error in packed object",
            "object 12: hasDotgit: contains '.git'",
        ),
        (
            "@@@@@\nHost key for example.org has changed and you have requested strict checking.\n",
            "Host key for example.org has changed and you have requested strict checking.",
        ),
    ],
)
def test_the_message_is_the_line_that_tells_most(errors: str, message: str) -> None:
    assert explain_failure(errors, exit_code=128).message == message


def test_a_message_is_one_printable_line() -> None:
    why = explain_failure(
        "remote: \x1b[31mhello\nfatal: Authentication failed for 'x'\x07" + "y" * 1000,
        exit_code=128,
    )
    assert why.message.startswith("Authentication failed for 'x' yyy")
    assert len(why.message) == 300


def test_bounds_come_before_messages() -> None:
    assert explain_failure("fatal: x", exit_code=-9, exceeded="time").code == "source.slow"
    assert explain_failure("fatal: x", exit_code=-9, exceeded="output").code == "source.too-large"
    assert explain_failure("fatal: x", exit_code=-25).code == "source.too-large"
