"""The name of a Compose project whose files are broken, by the lines of their text.

A name hides behind a mistake: a misspelt key, a missing colon, text in braces. Then no name is
certain, and the project possibly is of any namespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

from controller.core.yaml.documents import decode

_KEY: Final = "name"
_SERVICES: Final = frozenset({"services", "include"})
_WORD: Final = re.compile(r"""["']?([\w.-]+)["']?[ \t]*(:?)[ \t]*(.*)""")
_LITERAL: Final = re.compile(r"""(["']?)([A-Za-z0-9][\w-]*)\1[ \t]*(?:#.*)?""")
#: Comments, marks of documents, and marks of an unfinished merge.
_MARK: Final = re.compile(r"#|%|---|\.\.\.|<<<<<<<|\|\|\|\|\|\|\||=======|>>>>>>>|[\]},]+[ \t]*$")
_SIMILARITY: Final = 0.6


def written_name(texts: Iterable[bytes], default: str) -> str | None:
    """Return the name that the texts of a project's files give it; None if it isn't certain.

    *default* is the name of a project without a written one. The last file decides. A text without the
    beginning of any service, such as a truncated one, is never certain.
    """
    name, has_services = default, False
    for text in texts:
        found = set[str]()
        for line in decode(text).lstrip("\ufeff").splitlines():
            if not line.strip() or line[0].isspace() or _MARK.match(line) or line.startswith("- "):
                continue
            word = _WORD.match(line)
            if word is None:
                return None
            key, colon, value = word.groups()
            if key == _KEY and colon:
                literal = _LITERAL.fullmatch(value.strip())
                if literal is None:
                    return None
                found.add(literal[2])
            elif SequenceMatcher(None, key.lower(), _KEY).ratio() >= _SIMILARITY:
                return None
            has_services = has_services or key in _SERVICES
        if len(found) > 1:
            return None
        name = next(iter(found), name)
    return name if has_services else None
