"""What leaves: to webhooks, mail servers and programs, and how each refusal is called."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from email import message_from_string
from pathlib import Path

import pytest

from controller.core.notify.texts import Origin
from controller.model.notifications import Notice, NoticeEvent, NoticeTarget
from controller.notify.senders import NoticeNotSent, TargetSender
from controller.system.outgoing import HttpLimits
from tests.certificates import write_certificate
from tests.git.forge import ForgeServer
from tests.unit.notify.mail_server import PASSWORD, MailServer

ORIGIN = Origin("host-1", "0123456789abcdef")
NOTICE = Notice(
    "1f2e3d4c5b6a7988",
    2,
    NoticeEvent.OPENED,
    "page",
    "Service shop/web: CrashLoop",
    "exits with 1",
    1_780_000_000.0,
    1_780_000_000.0,
    ("shop/web",),
    1,
)
SENDER = TargetSender(time.monotonic)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    write_certificate(tmp_path)
    return tmp_path


def secret(folder: Path, text: str = PASSWORD) -> str:
    path = folder / "secret"
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return str(path)


def hook(server: ForgeServer, **members: object) -> NoticeTarget:
    return replace(NoticeTarget("chat", webhook=f"{server.url}/hook", private=True), **members)  # type: ignore[arg-type]


def reason(target: NoticeTarget, sender: TargetSender = SENDER) -> NoticeNotSent:
    with pytest.raises(NoticeNotSent) as caught:
        sender.send(target, NOTICE, ORIGIN)
    return caught.value


def test_a_webhook_gets_the_message_with_the_incident_and_the_token(certificate: Path) -> None:
    with ForgeServer(certificate) as server:
        target = hook(server, ca=str(certificate / "ca.pem"), secret_file=secret(certificate))
        SENDER.send(target, NOTICE, ORIGIN)
    (got,) = server.received
    assert got.headers["trimtab-incident"] == NOTICE.incident
    assert got.headers["trimtab-message"] == f"{NOTICE.incident}.2"
    assert got.headers["authorization"] == f"Bearer {PASSWORD}"
    assert got.body["title"] == "[host-1] Service shop/web: CrashLoop"


def test_a_url_that_is_a_secret_is_read_from_its_file_and_never_repeated(tmp_path: Path) -> None:
    with ForgeServer() as server:
        url = secret(tmp_path, f"{server.url}/s3cret")
        target = NoticeTarget("chat", webhook_file=url, private=True)
        SENDER.send(target, NOTICE, ORIGIN)
        assert [each.path for each in server.received] == ["/s3cret"]
        server.answers.next.append((500, {}))
        assert "s3cret" not in str(reason(target))
    assert "s3cret" not in str(reason(target))
    assert "http:// can be read" in str(reason(replace(target, private=False)))


def test_a_certificate_that_nobody_trusts_ends_the_try_before_the_token(certificate: Path) -> None:
    with ForgeServer(certificate) as server:
        told = reason(hook(server, secret_file=secret(certificate)))
    assert "certificate can't be trusted" in str(told)
    assert server.received == []


@pytest.mark.parametrize(
    ("status", "refused", "message"),
    [
        (302, False, "answers 302, a redirect, and none is followed"),
        (400, True, "answers 400 Bad Request"),
        (403, False, "answers 403 Forbidden"),
        (429, False, "answers 429 Too Many Requests"),
        (500, False, "answers 500 Internal Server Error"),
    ],
)
def test_each_answer_but_2xx_is_a_failure(status: int, refused: bool, message: str) -> None:
    with ForgeServer() as server, ForgeServer() as elsewhere:
        server.answers.next.append((status, {"Location": f"{elsewhere.url}/"}))
        error = reason(hook(server))
    assert message in str(error)
    assert error.refused is refused
    assert elsewhere.received == []


def test_a_private_address_needs_the_word_of_the_settings() -> None:
    with ForgeServer() as server:
        error = reason(hook(server, private=False))
    assert "its address 127.0.0.1 isn't public" in str(error)
    assert server.received == []


def test_a_webhook_that_is_slow_or_away_costs_a_bounded_time() -> None:
    sender = replace(SENDER, limits=HttpLimits(silence_s=5.0, life_s=0.3))
    with ForgeServer() as server:
        server.may_answer.clear()
        assert "takes too long" in str(reason(hook(server), sender))
    assert "refused" in str(reason(hook(server), sender))


@pytest.mark.parametrize("mode", [0o644, 0o604])
def test_a_secret_that_everybody_reads_is_not_used(tmp_path: Path, mode: int) -> None:
    path = secret(tmp_path)
    Path(path).chmod(mode)
    with ForgeServer() as server:
        assert "readable by everybody" in str(reason(hook(server, secret_file=path)))
        missing = reason(hook(server, secret_file=str(tmp_path / "none")))
    assert "No such file" in str(missing)
    assert server.received == []


def mail(server: MailServer, scheme: str, folder: Path, **members: object) -> NoticeTarget:
    target = NoticeTarget(
        "mail",
        smtp=f"{scheme}://127.0.0.1:{server.port}",
        mail_from="trimtab@example.org",
        mail_to=("a@example.org", "b@example.org"),
        ca=str(folder / "ca.pem"),
        private=True,
    )
    return replace(target, **members)  # type: ignore[arg-type]


def test_mail_goes_through_starttls_with_the_id_of_the_message(certificate: Path) -> None:
    with MailServer(certificate) as server:
        login = {"user": "t", "secret_file": secret(certificate)}
        target = mail(server, "smtp", certificate, **login)
        SENDER.send(target, NOTICE, ORIGIN)
        SENDER.send(target, NOTICE, ORIGIN)
    assert server.plain[:2] == ["EHLO", "STARTTLS"]
    assert {"AUTH", "MAIL", "DATA"}.isdisjoint(server.plain)
    first, second = map(message_from_string, server.mails)
    assert first["Subject"] == "[host-1] Service shop/web: CrashLoop"
    assert first["Trimtab-Incident"] == NOTICE.incident
    assert first["Message-ID"] == second["Message-ID"]
    assert "affected: shop/web" in str(first.get_payload())


def test_mail_is_not_sent_without_tls_or_to_strangers(certificate: Path, tmp_path: Path) -> None:
    with MailServer() as server:
        assert "STARTTLS" in str(reason(mail(server, "smtp", certificate)))
        private = mail(server, "smtp+plain", certificate, private=False)
        assert "isn't public" in str(reason(private))
        SENDER.send(mail(server, "smtp+plain", certificate), NOTICE, ORIGIN)
        assert len(server.mails) == 1
    with MailServer(certificate) as server:
        untrusted = reason(mail(server, "smtp", certificate, ca=""))
        assert "certificate can't be trusted" in str(untrusted)
        wrong = secret(tmp_path, "another")
        denied = reason(mail(server, "smtp", certificate, user="t", secret_file=wrong))
        assert str(denied) == "127.0.0.1: answers 535"
        assert server.mails == []


def test_a_program_gets_json_and_has_a_bounded_time(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = f'cat > {out}; echo "$TRIMTAB_INCIDENT ${{HOME-none}}" >> {out}'
    SENDER.send(NoticeTarget("p", command=("/bin/sh", "-c", script)), NOTICE, ORIGIN)
    body, _, rest = out.read_text().partition("}")
    assert json.loads(f"{body}}}")["incident"] == NOTICE.incident
    assert rest.split() == [NOTICE.incident, "none"]
    failing = NoticeTarget("p", command=("/bin/sh", "-c", "echo s3cret >&2; exit 3"))
    assert str(reason(failing)) == "/bin/sh: ended with 3"
    slow = NoticeTarget("p", command=("/bin/sleep", "60"))
    assert "bound on time" in str(reason(slow, replace(SENDER, program_s=0.2)))
    assert "No such file" in str(reason(NoticeTarget("p", command=("/nowhere",))))
