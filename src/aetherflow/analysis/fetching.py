"""One answer of a server over HTTP: within a time and a size, or one reason why not."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException
from typing import Final

__all__ = ["AnswerTooLongError", "NoAnswerError", "fetch"]

_CHUNK: Final = 1 << 16


class NoAnswerError(Exception):
    """There is no whole answer; the message says why, without the address."""


class AnswerTooLongError(NoAnswerError):
    """An answer is longer than it may be."""


def fetch(
    request: urllib.request.Request,
    *,
    timeout: float,
    most: int,
    opener: urllib.request.OpenerDirector | None = None,
) -> tuple[bytes, Message]:
    """Ask a server.

    Args:
        request: What is asked.
        timeout: Seconds until the whole answer must be there.
        most: How many bytes it may have.
        opener: What asks; None for what follows redirections.

    Returns:
        The answer's body and its headers.

    Raises:
        NoAnswerError: There is none, or not all of it.
        urllib.error.HTTPError: It has a status other than 200; the caller closes it.
    """
    deadline = time.monotonic() + timeout
    late = f"does not answer within {timeout:g} s"
    try:
        with (opener or urllib.request.build_opener()).open(request, timeout=timeout) as answer:
            body = bytearray()
            while chunk := answer.read1(_CHUNK):
                body += chunk
                if len(body) > most:
                    raise AnswerTooLongError(f"answers with more than {most:,} bytes")
                if time.monotonic() > deadline:
                    raise NoAnswerError(late)
            if answer.length:
                raise NoAnswerError("breaks off in the middle of its answer")
            return bytes(body), answer.headers
    except urllib.error.HTTPError:
        raise
    except TimeoutError as error:
        raise NoAnswerError(late) from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, TimeoutError):
            raise NoAnswerError(late) from error
        told = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise NoAnswerError(f"cannot be reached ({told})") from error
