"""The unit that restores the files of Secrets before the engine starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.broker.secrets.opener import usual_bases
from controller.system.systemd import SECRETS, is_restored_at_boot

SHIPPED = Path(__file__).parents[3] / "configs" / "systemd" / "trimtab-files.service"
ROOT = "/var/lib/trimtab"


def enable(folder: Path, text: str, *, wants: str = "docker.service.wants") -> None:
    (folder / wants).mkdir(exist_ok=True)
    (folder / "trimtab-files.service").write_text(text)
    (folder / wants / "trimtab-files.service").symlink_to("../trimtab-files.service")


def test_the_shipped_unit_counts_for_its_state_folder_once_it_is_enabled(tmp_path: Path) -> None:
    text = SHIPPED.read_text()
    (tmp_path / "trimtab-files.service").write_text(text)
    assert not is_restored_at_boot(Path(ROOT), [tmp_path])
    enable(tmp_path, text)
    assert is_restored_at_boot(Path(ROOT), [tmp_path, tmp_path / "none"])
    assert not is_restored_at_boot(Path("/srv/another"), [tmp_path])


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        ("ReadWritePaths=/var/lib/trimtab /run/trimtab", True),
        ("RuntimeDirectory=trimtab", True),
        ("RuntimeDirectory=other", False),
        ("ReadWritePaths=-/run/trimtab", True),
        ("ReadWritePaths=/run", True),
        ("ReadWritePaths=/run/trimtab-other", False),
        ("", False),
        ("ProtectSystem=full", True),
    ],
)
def test_a_unit_that_cannot_write_the_folder_of_secrets_does_not_count(
    tmp_path: Path, line: str, counts: bool
) -> None:
    writable = "ReadWritePaths=/var/lib/trimtab /run/trimtab"
    replaced = "ProtectSystem=strict" if line.startswith("Protect") else writable
    shipped = SHIPPED.read_text()
    assert f"{replaced}\n" in shipped
    assert usual_bases()[0] == SECRETS
    enable(tmp_path, shipped.replace(f"{replaced}\n", f"{line}\n"))
    assert is_restored_at_boot(Path(ROOT), [tmp_path]) == counts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[Unit]\nBefore=docker.service\n[Service]\nExecStart=/bin/true\n",
        f"[Service]\nExecStart=/bin/trimtab files restore --state {ROOT}\n",
        f"[Unit]\nBefore=docker.service\n[Service]\nExecStart=/bin/trimtab files list --state {ROOT}\n",
        "[Unit]\nBefore=docker.service\n[Service]\nExecStart=/bin/trimtab files restore --state 'x\n",
    ],
)
def test_a_unit_that_restores_nothing_before_the_engine_does_not_count(
    tmp_path: Path, text: str
) -> None:
    enable(tmp_path, text)
    assert not is_restored_at_boot(Path(ROOT), [tmp_path])


def test_a_masked_unit_and_a_broken_link_do_not_count(tmp_path: Path) -> None:
    wants = tmp_path / "docker.service.requires"
    wants.mkdir()
    (wants / "a.service").symlink_to("/dev/null")
    (wants / "b.service").symlink_to("gone")
    assert not is_restored_at_boot(Path(ROOT), [tmp_path])
    text = f"[Unit]\nBefore=docker.service\n[Service]\nExecStart=/t files restore --state={ROOT}\n"
    enable(tmp_path, text, wants="docker.service.requires")
    assert is_restored_at_boot(Path(ROOT), [tmp_path])
