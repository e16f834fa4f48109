"""Record what docker-compose prints for the cases of tests/unit/core/compose/recorded.

python -m tools.compose_record
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.unit.core.compose.recorded_cases import FOLDER, Case, cases
from tools.compose_diff import ask_oracle


def record(case: Case) -> object:
    """Return the answer of docker-compose for a case."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "source"
        for name, text in case.files.items():
            path = root / "shop" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.replace("\\r\n", "\r\n").encode())
        answer = ask_oracle(root, "shop")
        reason = answer.refusal.replace(f"{root}/", "./")
    return reason or answer.tree


def main() -> None:
    """Write the answers of all groups."""
    groups: dict[str, dict[str, object]] = {}
    for case in cases():
        groups.setdefault(case.group, {})[case.title] = record(case)
    for group, answers in groups.items():
        text = json.dumps(answers, indent=1, sort_keys=True, ensure_ascii=False)
        (FOLDER / f"{group}.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
