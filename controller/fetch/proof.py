"""The proof of a commit, for the broker's signed admission (docs/decisions/0067-signed-admission.md).

A proof has the commit, earlier commits, the trees that lead to the documents and to the charts, and all files
below the two folders, in the form of ``git cat-file --batch``. The broker checks every hash.
"""

from __future__ import annotations

from controller.core.git.tree_checks import ExportList, folders_of
from controller.fetch.mirror import Mirror

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
