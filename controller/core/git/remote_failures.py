"""Failures of the git command: from its messages to codes with a remedy.

The messages are those of git and ssh in the locale C. A server can add lines of its own to them, so a
message never decides more than a code and a remedy.
"""

from __future__ import annotations

import re

from controller.core.git.commit_objects import Refusal

_MESSAGE_MAX = 300
_WAIT = "nothing: it is tried again; check the server and the network if that doesn't help"
_REPAIR = "run 'git fsck --strict' on the repository, and repair it"

#: First match wins: code, pattern, remedy.
_RULES: tuple[tuple[str, str, str], ...] = (
    (
        "source.disk-full",
        r"No space left on device|Disk quota exceeded",
        "free space in the state folder; the served commit stays",
    ),
    (
        "source.too-large",
        r"File too large|died of signal 25|pack exceeds maximum|Out of memory|out of memory|malloc failed|mmap failed",
        "shrink the repository, or move the documents to a repository of their own",
    ),
    (
        "source.host-key",
        r"Host key for \S+ has changed|No \S+ host key is known|Host key verification failed",
        "compare the server's key with its owner, then correct known_hosts of the credentials",
    ),
    (
        "source.certificate",
        r"SSL certificate|certificate verif|certificate problem|server verification failed",
        "put the authority's certificate into ca.pem of the credentials, or correct the server",
    ),
    (
        "source.credentials",
        (
            r"Authentication failed|could not read (?:Username|Password)|Permission denied \(|"
            r"returned error: 40[13]|Invalid username or|HTTP Basic: RemoteAccess denied|Load key "
        ),
        "renew the files of spec.git.credentials in /etc/trimtab/git",
    ),
    (
        "source.redirected",
        r"returned error: 30\d|unable to update url base from redirection",
        "write the URL that the server redirects to",
    ),
    (
        "source.slow",
        r"Operation too slow|Operation timed out|Connection timed out|early EOF.*timed",
        "nothing: it is tried again; a slow server needs a smaller repository",
    ),
    (
        "source.damaged",
        (
            r"object [0-9a-f]+: \w+: |fsck error|repository corruption|inflate|pack is corrupted|"
            r"is corrupt|SHA1 COLLISION|pack has bad object"
        ),
        _REPAIR,
    ),
    # After a connection that broke, git complains of the part of the pack that came.
    (
        "source.unreachable",
        r"RPC failed; curl (?:18|52|55|56|92) |unexpected disconnect|early EOF",
        _WAIT,
    ),
    (
        "source.reference-missing",
        r"couldn't find remote ref|not our ref|no such remote ref",
        "push the reference again, or correct spec.git.ref; the served commit stays",
    ),
    (
        "source.object",
        r"expected commit type, but the object dereferences to",
        "let spec.git.ref name a branch or tag that leads to a commit",
    ),
    (
        "source.damaged",
        (
            r"index-pack failed|unpack-objects failed|bad object|invalid index-pack|"
            r"did not send all necessary objects|missing blob|object .* (?:is|not)|loose object"
        ),
        _REPAIR,
    ),
    (
        "source.repository-missing",
        (
            r"does not appear to be a git repository|[Rr]epository .*not found|returned error: 404|"
            r"not a git repository|No such file or directory"
        ),
        "correct spec.git.url, or give the credentials access to the repository",
    ),
    (
        "source.owner",
        r"detected dubious ownership",
        "check the repository's owner; file URLs must name the repository's own folder",
    ),
    (
        "source.protocol",
        r"mismatched algorithms",
        "the repository's hash function changed: declare a Source with another name for it",
    ),
    (
        "source.protocol",
        (
            r"transport '.*' not allowed|[Uu]nknown protocol|dumb http|"
            r"protocol error|bad line length|invalid server response"
        ),
        "check that spec.git.url leads to a Git server",
    ),
    (
        "source.unreachable",
        (
            r"Could not resolve|[Cc]onnection refused|Failed to connect|Couldn't connect|"
            r"[Cc]onnection reset|[Cc]onnection closed|Network is unreachable|No route to host|"
            r"remote end hung up|unable to access|Broken pipe|returned error: 5\d\d"
        ),
        _WAIT,
    ),
)
_COMPILED = tuple(
    (code, re.compile(pattern, re.DOTALL), remedy) for code, pattern, remedy in _RULES
)
_BEGINNING = re.compile(r"^(?:fatal|error): ")


def explain_failure(errors: str, *, exit_code: int, exceeded: str = "") -> Refusal:
    """Return code, message and remedy for a failed git command.

    *exceeded* is the bound that ended the command: ``time``, ``output``, or '' for none.
    """
    if exceeded == "time":
        return Refusal(
            "source.slow",
            "git didn't finish in time and was ended",
            "nothing: it is tried again; a slow server needs a smaller repository",
        )
    if exceeded == "output":
        return Refusal(
            "source.too-large",
            "git printed more than its bound",
            "remove references that nobody needs, or use a repository of its own",
        )
    if exit_code == -25:  # SIGXFSZ: the pack is longer than the limit of a file
        errors = "File too large"
    for code, pattern, remedy in _COMPILED:
        if pattern.search(errors):
            return Refusal(code, _message(errors, pattern), remedy)
    return Refusal(
        "source.git",
        f"git failed (exit {exit_code}): {_message(errors, None)}",
        "run 'trimtab source sync', and look at the repository with git",
    )


def _message(errors: str, pattern: re.Pattern[str] | None) -> str:
    """Return the line that explains the failure, printable and bounded."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    telling = [line for line in lines if pattern is not None and pattern.search(line)]
    own = [line for line in lines if _BEGINNING.match(line)]
    chosen = (telling or own or lines or ["no reason was given"])[0]
    clean = "".join(c if c.isprintable() else " " for c in chosen)
    return _BEGINNING.sub("", clean)[:_MESSAGE_MAX]
