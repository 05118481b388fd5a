"""Why a session of Ray did not open, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner_ray._sessions import Session


def explained(session: Session, error: BaseException | None, seconds: float) -> str:
    """Say why a session did not open.

    Args:
        session: which.
        error: what Ray raised; None if it did not come back.
        seconds: the time that it had.
    """
    text = "" if error is None else f"{error} {error.__cause__ or ''}".strip()
    if session.temporary:
        if error is None:
            return (
                f"{capital(session.where)} did not start within {seconds:g} s. Allow more with start_timeout=SECONDS."
            )
        return f"{capital(session.where)} did not start: {type(error).__name__}: {text}"
    start = f"No connection to {session.where}: "
    lowered = text.lower()
    if "authenticat" in lowered or "token" in lowered:
        return (
            f"{start}it asks for an authentication token, and that of this process is missing or another one. Set "
            f"RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token of the cluster; on its "
            f"head, `ray get-auth-token` prints it. Ray says: {text}"
        )
    if "version mismatch" in lowered or "python version" in lowered:
        return (
            f"{start}it runs another version of Ray or Python than this process. Install the same there and here. Ray "
            f"says: {text}"
        )
    if error is None or text == "ray client connection timeout":  # Ray's own limit, 30 s
        within = f" within {seconds:g} s" if error is None else ""
        return (
            f"{start}something listens there, and did not answer as a Ray cluster does{within}. Is this "
            "the address that `ray start --head` printed? If the cluster asks for an authentication token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN."
        )
    return f"{start}{type(error).__name__}: {text}"


def capital(text: str) -> str:
    """Let a text begin a sentence."""
    return text[:1].upper() + text[1:]
