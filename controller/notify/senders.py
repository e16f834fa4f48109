"""Sends one message to one destination: a webhook, a mail server, or a program.

No text of an error repeats a URL, a secret, or what a receiver answered: errors are shown to users.
"""

from __future__ import annotations

import re
import smtplib
import socket
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from controller.core.notify.texts import (
    Origin,
    body_of,
    headers_of,
    message_json,
    title_of,
    webhook_request,
)
from controller.model.notice_targets import MAIL_PORTS, url_faults
from controller.model.notifications import Notice, NoticeTarget
from controller.system.child_programs import Bounds, run_program
from controller.system.outgoing import (
    Exchange,
    HttpLimits,
    Unanswered,
    is_any,
    is_public,
    post,
    tls_context,
)

SECRET_MAX: Final = 4096
#: How long a program may run.
PROGRAM_S: Final = 30.0
_PRINTABLE: Final = re.compile(rb"[!-~]+")
#: Answers that say that this message isn't taken, while another one can be.
_REFUSALS: Final = frozenset({400, 413, 415, 422})
_ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_LIMITS: Final = HttpLimits(life_s=30.0)


class NoticeNotSent(Exception):
    """A message wasn't delivered, as far as is known. The text is the reason.

    *refused*: the receiver doesn't take this message, and can take others.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class TargetSender:
    """Sends messages of one origin."""

    monotonic: Callable[[], float]
    limits: HttpLimits = _LIMITS
    program_s: float = PROGRAM_S

    def send(self, target: NoticeTarget, notice: Notice, origin: Origin) -> None:
        """Send a message, and return once the receiver took it.

        Raises:
            NoticeNotSent: it didn't.
        """
        if target.command:
            self._run(target, notice, origin)
        elif target.smtp:
            self._mail(target, notice, origin)
        else:
            self._post(target, notice, origin)

    def _post(self, target: NoticeTarget, notice: Notice, origin: Origin) -> None:
        url = target.webhook or _url_of(target)
        headers, body = webhook_request(notice, target.template, origin)
        if target.secret_file:
            headers["Authorization"] = f"Bearer {read_secret(target.secret_file)}"
        try:
            answer = post(
                url,
                headers,
                body,
                authority=Path(target.ca) if target.ca else None,
                limits=self.limits,
                is_permitted=_permitted(target),
            )
        except Unanswered as error:
            raise NoticeNotSent(f"{urlsplit(url).hostname}: {error}") from None
        _raise_for_status(answer.status)

    def _mail(self, target: NoticeTarget, notice: Notice, origin: Origin) -> None:
        parts = urlsplit(target.smtp)
        host, port = parts.hostname or "", parts.port or MAIL_PORTS[parts.scheme]
        password = read_secret(target.secret_file) if target.user else ""
        with Exchange(self.limits, _permitted(target)) as exchange:
            try:
                context = tls_context(Path(target.ca) if target.ca else None)
                server = _MailServer(exchange, context if parts.scheme == "smtps" else None)
                server.connect(host, port)
                if parts.scheme == "smtp":
                    server.ehlo_or_helo_if_needed()
                    server.starttls_with(context, host)
                if password:
                    server.login(target.user, password)
                server.send_message(mail_of(target, notice, origin))
                exchange.raise_if_cut()
            except smtplib.SMTPResponseException as error:
                # A server that refuses the receivers or the text refuses this message; else all.
                refused = error.smtp_code // 100 == 5 and isinstance(error, smtplib.SMTPDataError)
                raise NoticeNotSent(f"{host}: answers {error.smtp_code}", refused=refused) from None
            except smtplib.SMTPException as error:
                raise NoticeNotSent(f"{host}: {_mail_reason(error)}") from None
            except Unanswered as error:
                raise NoticeNotSent(f"{host}: {error}") from None
            except (OSError, ValueError) as error:
                raise NoticeNotSent(f"{host}: {exchange.reason(error)}") from None

    def _run(self, target: NoticeTarget, notice: Notice, origin: Origin) -> None:
        program = target.command[0]
        names = {
            name.upper().replace("-", "_"): value for name, value in headers_of(notice).items()
        }
        try:
            done = run_program(
                target.command,
                environment={**_ENVIRONMENT, **names},
                bounds=Bounds(time_s=self.program_s, output_max=64 * 1024),
                monotonic=self.monotonic,
                given=message_json(notice, origin),
            )
        except OSError as error:
            raise NoticeNotSent(f"{program}: {error.strerror}") from None
        if done.exceeded:
            raise NoticeNotSent(f"{program}: ended, since it exceeds its bound on {done.exceeded}")
        if not done.is_success:
            raise NoticeNotSent(f"{program}: ended with {done.code}")


def _permitted(target: NoticeTarget) -> Callable[[str], bool]:
    return is_any if target.private else is_public


def _raise_for_status(status: int) -> None:
    if status // 100 == 2:
        return
    if status // 100 == 3:
        raise NoticeNotSent(f"the webhook answers {status}, a redirect, and none is followed")
    known = {each.value: f" {each.phrase}" for each in HTTPStatus}
    raise NoticeNotSent(
        f"the webhook answers {status}{known.get(status, '')}", refused=status in _REFUSALS
    )


def _url_of(target: NoticeTarget) -> str:
    url = read_secret(target.webhook_file)
    for fault in url_faults(url, private=target.private):
        raise NoticeNotSent(f"{target.webhook_file}: {fault.message} ({fault.remedy})")
    return url


def read_secret(path: str) -> str:
    """Return the secret in a file: one line of printable characters.

    Raises:
        NoticeNotSent: the file can't be read, is readable by everybody, or has something else.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a descriptor whose mode is checked
            mode = Path(f"/proc/self/fd/{file.fileno()}").stat().st_mode
            text = file.read(SECRET_MAX + 1).strip()
    except OSError as error:
        raise NoticeNotSent(f"{path} can't be read: {error.strerror}") from None
    if not stat.S_ISREG(mode) or mode & stat.S_IROTH:
        raise NoticeNotSent(f"{path} is readable by everybody: chmod o= {path}")
    if len(text) > SECRET_MAX or not _PRINTABLE.fullmatch(text):
        raise NoticeNotSent(f"{path} has no line of printable characters")
    return text.decode("ascii")


def mail_of(target: NoticeTarget, notice: Notice, origin: Origin) -> EmailMessage:
    """Return a message as mail. A repeated one has the same Message-ID."""
    mail = EmailMessage()
    headers = headers_of(notice)
    domain = target.mail_from.rpartition("@")[2]
    mail["From"] = target.mail_from
    mail["To"] = ", ".join(target.mail_to)
    mail["Subject"] = title_of(notice, origin)
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.at, UTC))
    mail["Message-ID"] = f"<{headers['Trimtab-Message']}.{target.name}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    for name, value in headers.items():
        mail[name] = value
    mail.set_content(f"{body_of(notice)}\n")
    return mail


class _MailServer(smtplib.SMTP):
    """A mail server over a connection whose address and life are checked."""

    def __init__(self, exchange: Exchange, context: Any | None) -> None:
        self._exchange = exchange
        self._context = context
        super().__init__(local_hostname=socket.gethostname())

    def _get_socket(self, host: str, port: int, _timeout: float) -> Any:
        self._host = host
        plain = self._exchange.connect(host, port)
        return plain if self._context is None else self._exchange.secure(plain, self._context, host)

    def starttls_with(self, context: Any, host: str) -> None:
        """Secure the connection, or raise: nothing is sent without TLS."""
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError("it doesn't offer STARTTLS")
        code, _ = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, "")
        assert self.sock is not None, "the server has answered"
        self.sock = self._exchange.secure(self.sock, context, host)
        # As smtplib does: what came before the handshake isn't to be believed.
        self.file = self.helo_resp = self.ehlo_resp = None
        self.esmtp_features, self.does_esmtp = {}, False


def _mail_reason(error: smtplib.SMTPException) -> str:
    match error:
        case smtplib.SMTPRecipientsRefused():
            codes: Mapping[str, Any] = error.recipients
            return f"refuses the receivers: {min(code for code, _ in codes.values())}"
        case smtplib.SMTPNotSupportedError():
            return "doesn't offer what is needed: STARTTLS, or a login"
        case _:
            return "hung up"
