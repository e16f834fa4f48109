"""One fetch of one source: list, fetch, examine, decide, export, serve.

An error at any step leaves the served commit as it is.

The proof of a commit, for the broker's signed admission (docs/decisions/0067-signed-admission.md).

A proof has the commit, earlier commits, the trees that lead to the documents and to the charts, and all files
below the two folders, in the form of ``git cat-file --batch``. The broker checks every hash.
"""

from __future__ import annotations

import errno
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from controller.core.git import commit_objects
from controller.core.git.commit_objects import (
    DetachedSignature,
    ExportList,
    folders_of,
    parse_commit,
    parse_tag,
)
from controller.core.git.references import (
    CommitFindings,
    Hold,
    Keep,
    Relation,
    Serve,
    decide,
    pattern_of,
    select_reference,
)
from controller.fetch.credentials import AccessFiles, access_of
from controller.fetch.export import ExportFolder, SourceMemory
from controller.fetch.mirror import TOO_MANY, Mirror, RemoteAccess
from controller.model.desired.source_spec import GitSpec, SourceSpec, VerifyMode
from controller.model.errors import SourceError
from controller.model.names import short_commit
from controller.model.sources import CommitInfo, CommitSignature, SourceState

#: Longest proof, as the broker takes it.
PROOF_MAX = 16 << 20
#: Earlier commits in a proof, of each line.
ANCESTORS_MAX = 1000


def make_proof(
    mirror: Mirror, commit: str, listed: ExportList, *, path: str, since: str | None
) -> bytes | None:
    """Return the proof of a commit; None if it is too long. *since* is the commit served before.

    Raises:
        SourceError: the mirror can't be read.
    """
    folders = [path, *(each for each in folders_of(path)[1:] if _has(listed, each))]
    files = listed.files
    if sum(file.size_bytes for file in files) > PROOF_MAX:
        return None
    names = [commit, *mirror.ancestors(commit, since=since, at_most=ANCESTORS_MAX)]
    parts = [mirror.read_batch(names)]
    trees = (tree for folder in folders for tree in mirror.list_trees(commit, folder))
    parts.append(mirror.read_batch(dict.fromkeys(trees)))
    blobs = {file.object_id: file for file in files}
    for file, content in mirror.read_files(blobs.values()):
        parts.append(b"%b blob %d\n%b\n" % (file.object_id.encode(), len(content), content))
    proof = b"".join(parts)
    return proof if len(proof) <= PROOF_MAX else None


def _has(listed: ExportList, folder: str) -> bool:
    return any(file.path.startswith(f"{folder}/") for file in listed.files)


#: Longest list of commits whose signatures are checked at once.
COMMITS_MAX = 1000

#: Largest sum of the files that ``read_commit`` returns.
READ_MAX_BYTES = 16 << 20
_PREFIX = re.compile(r"[0-9a-f]{7,64}", re.ASCII)

#: Checks a signature against the folder of keys with a name; raises SourceError.
Verify = Callable[[str, DetachedSignature | None], CommitSignature]
Save = Callable[[SourceMemory], None]


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest commit of a reference."""

    #: The fetched object: the commit, or an annotated tag.
    object_id: str
    #: The reference that led to the object; a commit id for a fixed commit.
    reference: str
    commit: str
    relation: Relation


@dataclass(slots=True)
class SourceFetch:
    """Fetches a source. Not safe for several threads."""

    name: str
    mirror: Mirror
    exports: ExportFolder
    files: AccessFiles
    verify: Verify
    #: Held by the worker that uses the source's folders.
    turn: threading.Lock = field(default_factory=threading.Lock)

    def restore(self, memory: SourceMemory) -> SourceMemory:
        """Make the link lead to the remembered commit, as a whole; a crash can fall between the two.

        Without a memory, the link tells the served commit.

        Raises:
            OSError: the folder can't be written.
        """
        self.exports.prepare()
        linked = self.exports.served()
        current = memory.status.current
        if current is None and linked is not None:
            path = self.exports.path_of(linked) or ""
            status = replace(memory.status, current=CommitInfo(linked), state=SourceState.READY)
            return replace(memory, status=status, served_path=path)
        if current is not None and not self._is_exported(memory):
            if self.exports.path_of(current.commit) != memory.served_path and self.mirror.has(
                current.commit
            ):
                self._export(current, path=memory.served_path)
            if self.exports.path_of(current.commit) == memory.served_path:
                self.exports.serve(current.commit)
        return memory

    def run(self, spec: SourceSpec, memory: SourceMemory, *, save: Save) -> SourceMemory:
        """Fetch once. Return the new memory, with the decision; *save* makes it durable.

        Raises:
            SourceError: the repository can't be fetched or read, or the export can't be written.
            StateError: the memory can't be written.
        """
        try:
            return self._run(spec, memory, save=save)
        except OSError as error:
            raise _storage_error(error) from error

    def read_commit(
        self, prefix: str, *, path: str
    ) -> tuple[str, list[tuple[commit_objects.TreeFile, bytes]]]:
        """Return the id and the exported files of a fetched commit, served or not.

        *prefix* is its id, or the first digits. Other threads can call this method.

        Raises:
            SourceError: there is no such commit, or its tree can't be exported.
        """
        commit = self.mirror.find_commit(prefix) if _PREFIX.fullmatch(prefix) else None
        if commit is None:
            raise SourceError(
                "source.commit-missing",
                f"the mirror of source {self.name} has no commit {prefix}",
                remedy=f"push it to the followed reference, then 'trimtab source sync {self.name}'; "
                "or check it out, and name its folder",
            )
        listed = self._list_files(commit, path)
        if isinstance(listed, commit_objects.Refusal):
            raise SourceError(listed.code, listed.message, remedy=listed.remedy)
        if sum(file.size_bytes for file in listed.files) > READ_MAX_BYTES:
            raise SourceError(
                "source.too-large",
                f"the files of commit {short_commit(commit)} have more than {READ_MAX_BYTES >> 20} MiB",
                remedy="check the commit out, and name its folder",
            )
        return commit, list(self.mirror.read_files(listed.files))

    def _run(self, spec: SourceSpec, memory: SourceMemory, *, save: Save) -> SourceMemory:
        if memory.status.current is not None and not self._is_exported(memory):
            save(memory)  # a link that is ahead of the file would move back after a restart
        restored = self.restore(memory)
        if restored != memory:
            save(restored)
        memory = restored
        access = access_of(self.name, spec.git, self.files)
        reference, tip = self._find(spec.git, access)
        current = memory.status.current
        is_ready = memory.status.state is SourceState.READY and self._is_exported(memory)
        is_ready = is_ready and not (current and self._lacks_proof(spec, current.commit))
        if is_ready and tip == memory.tip and spec.git.path == memory.served_path:
            return memory
        fetched = self._fetch(spec.git, access, reference, tip)
        self.restore(memory)  # from the mirror, if that was lost as well
        served = current.commit if current else None
        commit = self.mirror.commit_of(fetched)
        if commit == served and spec.git.path == memory.served_path:
            self._export_proof(spec, commit, before=None)
            return _ready(memory, tip=tip)
        newest = _Newest(fetched, reference, commit, self._relation(served, commit))
        findings, listed = self._examine(spec, memory, newest)
        approval = memory.approval
        approved_by = approval.by if approval and approval.commit == commit else ""
        decision = decide(findings, source=self.name, approved_by=approved_by)
        match decision:
            case Keep():
                return _ready(memory, tip=tip)
            case Hold():
                return _held(memory, findings.newest, decision)
            case Serve():
                assert listed is not None, "a tree without a refusal has a list of files"
                self._serve(findings.newest, listed, path=spec.git.path)
                self._export_proof(spec, commit, before=served)
                memory = _served(memory, findings.newest, decision, path=spec.git.path, tip=tip)
                self.mirror.mark_served(commit)
                save(memory)
                self.exports.serve(commit)
                self.exports.remove_old()
                return memory

    def _lacks_proof(self, spec: SourceSpec, commit: str) -> bool:
        """Return True if a commit of a source with verification has no exported proof."""
        return spec.verify.mode is not VerifyMode.NONE and not self.exports.has_proof(commit)

    def _export_proof(self, spec: SourceSpec, commit: str, *, before: str | None) -> None:
        """Export the proof of a served commit. *before* is the commit served before, if any.

        A proof that is too long is exported as an empty file: the broker refuses the file.
        """
        if not self._lacks_proof(spec, commit):
            return
        listed = self._list_files(commit, spec.git.path)
        if isinstance(listed, commit_objects.ExportList):
            since = before if before is not None and self.mirror.has(before) else None
            made = make_proof(self.mirror, commit, listed, path=spec.git.path, since=since)
            self.exports.write_proof(commit, made or b"")

    def _is_exported(self, memory: SourceMemory) -> bool:
        """Return True if the link leads to the remembered commit, exported for the remembered path."""
        current = memory.status.current
        if current is None or self.exports.served() != current.commit:
            return False
        return self.exports.path_of(current.commit) == memory.served_path

    def _fetch(self, spec: GitSpec, access: RemoteAccess, reference: str, tip: str) -> str:
        """Return the object that the reference leads to, fetched unless the mirror has it."""
        self.mirror.prepare(hash_name="sha256" if len(tip) == 64 else "sha1")
        return tip if self.mirror.has(tip) else self.mirror.fetch(spec.url, reference, access)

    def _find(self, spec: GitSpec, access: RemoteAccess) -> tuple[str, str]:
        """Return the reference to fetch, and its id in the remote repository."""
        pattern = pattern_of(spec.ref)
        if pattern is None:
            assert spec.ref.commit is not None, "a reference without a pattern is a commit"
            return spec.ref.commit, spec.ref.commit
        listed = self.mirror.list_references(spec.url, pattern, access)
        reference = select_reference(spec.ref, listed)
        if reference is None:
            raise SourceError(
                "source.reference-missing",
                f"the repository has no {spec.ref}",
                remedy="push the reference again, or correct spec.git.ref; the served commit stays",
            )
        return reference, listed[reference]

    def _relation(self, served: str | None, newest: str) -> Relation:
        if served is None:
            return Relation.FIRST
        if served == newest:
            return Relation.SAME
        if not self.mirror.has(served):
            return Relation.UNRELATED
        if self.mirror.is_ancestor(served, newest):
            return Relation.NEWER
        if self.mirror.is_ancestor(newest, served):
            return Relation.OLDER
        is_related = self.mirror.has_common_history(served, newest)
        return Relation.REWRITTEN if is_related else Relation.UNRELATED

    def _examine(
        self, spec: SourceSpec, memory: SourceMemory, newest: _Newest
    ) -> tuple[CommitFindings, commit_objects.ExportList | None]:
        info, unreadable = self._info(newest.commit)
        tree = unreadable or self._list_files(newest.commit, spec.git.path)
        listed = tree if isinstance(tree, commit_objects.ExportList) else None
        signature, unsigned = self._check_signatures(spec, memory, newest)
        findings = CommitFindings(
            replace(info, signature=signature),
            newest.relation,
            moved=memory.served_path != spec.git.path,
            tree=None if isinstance(tree, commit_objects.ExportList) else tree,
            signature=unsigned,
            documents=listed.documents if listed else 0,
        )
        return findings, listed

    def _info(self, commit: str) -> tuple[CommitInfo, commit_objects.Refusal | None]:
        try:
            parsed = parse_commit(self.mirror.read("commit", commit))
        except ValueError as error:
            return CommitInfo(commit), _unreadable(commit, error)
        info = CommitInfo(commit, parsed.author, parsed.authored, parsed.committed, parsed.subject)
        return info, None

    def _list_files(
        self, commit: str, path: str
    ) -> commit_objects.ExportList | commit_objects.Refusal:
        try:
            entries = commit_objects.parse_tree(
                self.mirror.list_tree(commit, commit_objects.folders_of(path))
            )
        except SourceError as error:
            if error.code != TOO_MANY:
                raise
            return commit_objects.too_many_files(path)
        selected = commit_objects.select_files(entries, path=path)
        if isinstance(selected, commit_objects.Refusal):
            return selected
        small = [
            file for file in selected.files if file.size_bytes <= commit_objects.POINTER_MAX_BYTES
        ]
        for file, content in self.mirror.read_files(small):
            refusal = commit_objects.pointer_refusal(file.path, content)
            if refusal is not None:
                return refusal
        return selected

    def _check_signatures(
        self, spec: SourceSpec, memory: SourceMemory, newest: _Newest
    ) -> tuple[CommitSignature | None, commit_objects.Refusal | None]:
        """Return the signature of the newest commit or tag, or why the signatures aren't good."""
        keys = spec.verify.keys
        if keys is None or spec.verify.mode is VerifyMode.NONE:
            return None, None
        about = "the tag"
        try:
            if spec.verify.mode is VerifyMode.TAG:
                return self.verify(keys, self._tag_signature(spec.git, newest)), None
            signature = None
            for commit in self._to_verify(spec.verify.mode, memory, newest):
                about = f"commit {short_commit(commit)}"
                raw = self.mirror.read("commit", commit)
                signature = self.verify(keys, parse_commit(raw).signature)
        except SourceError as error:
            return None, commit_objects.Refusal(
                error.code, f"{about}: {error.message}", error.remedy
            )
        except ValueError as error:
            return None, _unreadable(about, error)
        return signature, None

    def _to_verify(self, mode: VerifyMode, memory: SourceMemory, newest: _Newest) -> list[str]:
        """Return the commits whose signatures must be good, the newest commit last."""
        current = memory.status.current
        if mode is VerifyMode.HEAD or current is None or not self.mirror.has(current.commit):
            return [newest.commit]
        between = self.mirror.commits_between(
            current.commit, newest.commit, at_most=COMMITS_MAX + 1
        )
        if len(between) > COMMITS_MAX:
            raise SourceError(
                "source.too-many-commits",
                f"more than {COMMITS_MAX} commits came since the served one; their signatures "
                "aren't checked",
            )
        return [*(commit for commit in reversed(between) if commit != newest.commit), newest.commit]

    def _tag_signature(self, spec: GitSpec, newest: _Newest) -> DetachedSignature | None:
        """Return the signature of an annotated tag with the followed name; None for none."""
        if self.mirror.kind_of(newest.object_id) != "tag":
            return None
        tag = parse_tag(self.mirror.read("tag", newest.object_id))
        if tag.kind != "commit" or tag.target != newest.commit:
            raise ValueError("it leads to no commit")
        # A signed tag can be pushed again under another name, as one of another range of versions.
        if spec.ref.commit is None and f"refs/tags/{tag.name}" != newest.reference:
            raise ValueError(f"its signed name is {tag.name}")
        return tag.signature

    def _serve(self, info: CommitInfo, listed: commit_objects.ExportList, *, path: str) -> None:
        self.exports.write(info, self.mirror.read_files(listed.files), path=path)

    def _export(self, info: CommitInfo, *, path: str) -> None:
        """Export a commit again that was served before."""
        listed = self._list_files(info.commit, path)
        if isinstance(listed, commit_objects.ExportList):
            self._serve(info, listed, path=path)


def _storage_error(error: OSError) -> SourceError:
    is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return SourceError(
        "source.disk-full" if is_full else "source.state",
        f"{error.filename or 'the state folder'}: {error.strerror}",
        remedy="free space in the state folder; the served commit stays"
        if is_full
        else "make the fetcher's folder writable for its user",
    )


def _unreadable(what: str, error: ValueError) -> commit_objects.Refusal:
    return commit_objects.Refusal(
        "source.object", f"{what} can't be read: {error}", "make the commit again with git"
    )


def _ready(memory: SourceMemory, *, tip: str) -> SourceMemory:
    status = replace(
        memory.status, state=SourceState.READY, reason="", message="", remedy="", candidate=None
    )
    return replace(memory, status=status, tip=tip, approvable=False, approval=None)


def _held(memory: SourceMemory, newest: CommitInfo, decision: Hold) -> SourceMemory:
    status = replace(
        memory.status,
        state=SourceState.HELD,
        candidate=newest,
        reason=decision.reason.code,
        message=decision.reason.message,
        remedy=decision.reason.remedy,
    )
    return replace(memory, status=status, tip="", approvable=decision.approvable)


def _served(
    memory: SourceMemory, newest: CommitInfo, decision: Serve, *, path: str, tip: str
) -> SourceMemory:
    ready = _ready(memory, tip=tip)
    status = replace(ready.status, current=newest, approved_by=decision.approved_by)
    return replace(ready, status=status, served_path=path)
