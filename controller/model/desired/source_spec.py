"""The ``spec`` of a Source: a Git repository with documents, and what the documents may declare."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from controller.model.desired.spec.fields import DurationMs, Model, matching
from controller.model.names import COMMIT_ID

INTERVAL_MIN_MS = 10_000
INTERVAL_MAX_MS = 86_400_000
NAMESPACES_MAX = 100
URL_MAX = 2048
WEB_URL_MAX = 255
REF_MAX = 255

#: No host and no user begins with '-': git and ssh would take it for an option.
_URL = re.compile(
    r"(?:https?://|ssh://(?:[A-Za-z0-9][\w.-]*@)?)[A-Za-z0-9\[][!-~]*|file:///[!-~]+", re.ASCII
)
_SCP_LIKE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[!-~]+", re.ASCII)
_USER_INFO = re.compile(r"https?://[^/]*@", re.ASCII)
#: Of git-check-ref-format(1): no '..', '@{', control characters, or characters of patterns.
_REF = re.compile(
    r"(?!.*(?:\.\.|@\{|//|\.lock(?:/|$)))[^\s\x00-\x20~^:?*\[\\\x7f/.-][^\s\x00-\x20~^:?*\[\\\x7f]*"
)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_WEB_URL = re.compile(
    r"https?://[A-Za-z0-9\[][A-Za-z0-9.:\[\]-]*(?:/[A-Za-z0-9._~/%-]*)?", re.ASCII
)
_REPOSITORY_PART = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,100}", re.ASCII)
_CONTEXT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,98}[A-Za-z0-9])?", re.ASCII)
_SEMVER_RANGE = re.compile(r"[0-9xX*^~<>=|. v-]{1,100}", re.ASCII)


def _url(text: str) -> str:
    if len(text) > URL_MAX or not (_URL.fullmatch(text) or _SCP_LIKE.fullmatch(text)):
        raise ValueError(
            "expected a URL such as https://example.org/team/deploy.git, ssh://git@host/deploy.git or "
            "file:///srv/git/deploy.git"
        )
    if _USER_INFO.match(text):
        raise ValueError(
            "contains a user or a password; expected a URL without both, and spec.git.credentials"
        )
    return text


def _ref(text: str) -> str:
    if len(text) > REF_MAX or text.endswith(("/", ".")) or not _REF.fullmatch(text):
        raise ValueError("expected the name of a Git reference, such as main")
    return text


def _full_ref(text: str) -> str:
    if not text.startswith("refs/"):
        raise ValueError("expected a full reference, such as refs/heads/main")
    return _ref(text)


def _folder(text: str) -> str:
    parts = text.split("/")
    clean = text == "." or not {"", ".", "..", ".git"} & set(parts)
    if not clean or len(text) > 1024 or not text.isprintable():
        raise ValueError("expected a folder of the repository, such as deploy/prod, or '.'")
    return text


def _repository(text: str) -> str:
    if len(text) > REF_MAX or not is_repository(text):
        raise ValueError("expected the path of a repository in the forge, such as team/deploy")
    return text


def is_repository(text: str) -> bool:
    """Return True if a text is the path of a repository in a forge: OWNER/NAME, or GROUP/…/NAME."""
    parts = text.split("/")
    return len(parts) > 1 and all(_REPOSITORY_PART.fullmatch(part) for part in parts)


FileName = Annotated[
    str, matching(_NAME, 63, "the name of a file: lower-case letters, digits and '-'")
]
CommitId = Annotated[
    str, matching(COMMIT_ID, 64, "a full commit id: 40 or 64 lower-case hex digits")
]
SemverRange = Annotated[
    str, matching(_SEMVER_RANGE, 100, 'a range of versions, such as "1.x" or ">=1.2.0 <2.0.0"')
]
StatusName = Annotated[
    str, matching(_CONTEXT, 100, "a name such as trimtab/web-1: letters, digits and '._/-'")
]
WebUrl = Annotated[
    str,
    matching(
        _WEB_URL,
        WEB_URL_MAX,
        "a URL such as https://git.example.org/api/v1, without user, query and fragment",
    ),
]


class GitRef(Model):
    """The commit to follow: exactly one of the fields."""

    branch: Annotated[str, AfterValidator(_ref)] | None = None
    tag: Annotated[str, AfterValidator(_ref)] | None = None
    #: A range; the highest matching tag is followed.
    semver: SemverRange | None = None
    commit: CommitId | None = None
    #: A full reference, such as ``refs/pull/7/head``.
    name: Annotated[str, AfterValidator(_full_ref)] | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name in type(self).model_fields if name in self.model_fields_set]
        if len(given) != 1:
            fault = f"has {' and '.join(given)}" if given else "is empty"
            raise ValueError(
                f"{fault}; expected exactly one of branch, tag, semver, commit and name"
            )
        return self

    def __str__(self) -> str:
        field = next(iter(self.model_fields_set))
        return f"{field} {getattr(self, field)}"


class Forge(StrEnum):
    """The software of a forge, which decides the form of its requests."""

    GITHUB = "github"
    GITLAB = "gitlab"
    #: Gitea and Forgejo.
    GITEA = "gitea"


class StatusSpec(Model):
    """The forge that gets the statuses of commits."""

    forge: Forge
    #: A folder in /etc/trimtab/git, with the file ``token``.
    credentials: FileName
    #: The base of the forge's API; None for that of the repository's host.
    url: WebUrl | None = None
    #: The repository in the forge, such as ``team/deploy``; None for the path of ``git.url``.
    repository: Annotated[str, AfterValidator(_repository)] | None = None
    #: The beginning of each status' name; None for ``trimtab/HOST``. The namespace follows.
    context: StatusName | None = None
    #: The page that a status links to.
    target_url: WebUrl | None = None


class GitSpec(Model):
    """The repository of a Source."""

    url: Annotated[str, AfterValidator(_url)]
    ref: GitRef = Field(default_factory=lambda: GitRef(branch="main"))
    #: The folder of the documents.
    path: Annotated[str, AfterValidator(_folder)] = "."
    #: The time between two fetches.
    interval: Annotated[DurationMs, Field(ge=INTERVAL_MIN_MS, le=INTERVAL_MAX_MS)] = 60_000
    #: A file or folder in /etc/trimtab/git; '' for none.
    credentials: FileName | None = None
    #: Permits plain HTTP to an address of this host.
    allow_insecure_loopback: bool = False
    #: None: no forge gets statuses.
    status: StatusSpec | None = None


class VerifyMode(StrEnum):
    """The signatures that must be good."""

    NONE = "none"
    #: The commit that the reference leads to.
    HEAD = "head"
    #: The annotated tag.
    TAG = "tag"
    #: All commits since the last served one.
    ALL = "all"


class VerifySpec(Model):
    """The verification of signatures."""

    mode: VerifyMode = VerifyMode.NONE
    #: A folder of public keys in /etc/trimtab/keys.
    keys: FileName | None = None

    @model_validator(mode="after")
    def _has_keys(self) -> Self:
        if self.mode is not VerifyMode.NONE and self.keys is None:
            raise ValueError(
                f"has mode {self.mode} without keys; "
                "expected keys: the name of a folder in /etc/trimtab/keys"
            )
        return self


class SourceSpec(Model):
    """The spec of a Source."""

    git: GitSpec
    verify: VerifySpec = VerifySpec.model_construct()
    #: The namespaces whose resources the documents may declare.
    namespaces: Annotated[tuple[str, ...], Field(min_length=1, max_length=NAMESPACES_MAX)]
    #: The permitted owners; empty for any owner.
    owners: Annotated[tuple[str, ...], Field(max_length=NAMESPACES_MAX)] = ()
    #: Other Sources with ``shared: true`` may list the same namespaces.
    shared: bool = False
    #: Leave the served commit in place, and fetch nothing.
    suspend: bool = False
