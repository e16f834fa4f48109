"""Users in numbers, as the runtime reads them from an image's files."""

from __future__ import annotations

import pytest

from controller.core.effective import Accounts, in_numbers, is_named

FILES = Accounts(
    passwd="root:x:0:0:root:/root:/bin/sh\n"
    "app:x:1000:1001::/home/app:/bin/sh\n"
    "app:x:7:7::/:/bin/sh\n"
    "wheel-user:x:1002:0::/:/bin/sh\n"
    "broken:x:many\n"
    "odd:x:1e3:7::/:\n",
    group="root:x:0:\ndisk:x:6:root,app\nstaff:x:50:app\nempty:\n",
)


@pytest.mark.parametrize(
    ("user", "numbers"),
    [
        ("", "0:0"),
        ("root", "0:0"),
        ("0", "0:0"),
        ("00", "0:0"),
        # Not the group of the image's passwd, and not root's.
        ("1000", "1000:1000"),
        ("4000", "4000:4000"),
        ("1000:1000", "1000:1000"),
        ("1000:0", "1000:0"),
        ("app", "1000:1001"),
        ("app:staff", "1000:50"),
        ("app:7", "1000:7"),
        ("1000:staff", "1000:50"),
        ("root:disk", "0:6"),
        ("wheel-user", "1002:0"),
        ("nobody-there", ""),
        ("app:nothing", ""),
        ("broken", ""),
        ("odd", ""),
        ("app:empty", ""),
    ],
)
def test_a_user_is_a_pair_of_numbers_or_unknown(user: str, numbers: str) -> None:
    assert in_numbers(user, FILES) == numbers


@pytest.mark.parametrize(("user", "numbers"), [("app", ""), ("1000:staff", ""), ("root", "0:0")])
def test_without_the_files_no_name_is_known_but_roots(user: str, numbers: str) -> None:
    assert in_numbers(user, None) == numbers


@pytest.mark.parametrize(
    ("user", "named"),
    [
        *(("", False), ("root", False), ("1000", False), ("1000:1000", False), ("root:0", False)),
        *(("app", True), ("1000:staff", True), ("app:7", True), ("root:disk", True)),
        ("١٠٠٠", True),  # digits of another script are a name
    ],
)
def test_a_name_needs_the_files(user: str, named: bool) -> None:
    assert is_named(user) is named
