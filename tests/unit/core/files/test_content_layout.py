"""Paths of delivered files, read back from the mounts of a container."""

import pytest

from controller.core.files.content import (
    UNKNOWN_CONTENT,
    MountedPlace,
    mounted_place,
    source_of,
    variant_id,
)
from controller.model.delivery import FileSet, Variant

ROOTS = {"config": "/state/files/config", "secret": "/run/trimtab/secrets/i1"}
DIGITS = "0a" * 32
VARIANT = Variant(999, 999, 0o400, ("a",))


@pytest.mark.parametrize("key", ["", "a", "sub/a"])
@pytest.mark.parametrize("stable", [False, True])
@pytest.mark.parametrize(("kind", "content"), [("config", "sha256"), ("secret", "hmac")])
def test_a_path_says_what_is_mounted(kind: str, content: str, stable: bool, key: str) -> None:
    files, identifier = FileSet(kind, "shop", "pw"), f"{content}:{DIGITS}"
    source = source_of(ROOTS[kind], files, identifier, VARIANT, key=key, stable=stable)
    shown = UNKNOWN_CONTENT if stable else identifier
    place = MountedPlace(files, shown, variant_id(VARIANT), key, stable)
    assert mounted_place(ROOTS, source) == place


@pytest.mark.parametrize(
    "source",
    [
        "/etc",
        "/state/files/config",
        "/state/files/config/shop",
        f"/state/files/config/shop/pw/{DIGITS}",
        f"/state/files/config/shop/pw/{DIGITS}/{'0' * 15}",
        f"/state/files/config/shop/pw/{DIGITS}/{'0' * 16}/../../x",
        f"/state/files/config/../pw/{DIGITS}/{'0' * 16}",
        f"/state/files/config/shop/Pw/{DIGITS}/{'0' * 16}",
        f"/state/files/configs/shop/pw/{DIGITS}/{'0' * 16}",
        f"/elsewhere/files/config/shop/pw/{DIGITS}/{'0' * 16}",
    ],
)
def test_any_other_path_is_none_of_delivered_files(source: str) -> None:
    assert mounted_place(ROOTS, source) is None
