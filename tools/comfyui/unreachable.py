"""Why no ComfyUI could be reached at an address, as one sentence."""

import asyncio
import ssl

import aiohttp


class NotComfyUI(RuntimeError):
    """Something else than a ComfyUI answered; the message says how."""


# what a first request to an address may raise
FAILURES = (aiohttp.ClientError, asyncio.TimeoutError, OSError, UnicodeError, ssl.SSLError, NotComfyUI)


def unreachable(address, error, seconds):
    """What was tried, why it failed and what to do.

    error: one of FAILURES. seconds: for how long an answer was waited for.
    """
    return (
        f"Could not reach a ComfyUI at {address}, because {reason(address, error, seconds)}; "
        "start ComfyUI there, correct --server, or let --comfyui PATH start one."
    )


def reason(address, error, seconds):
    host = address.rpartition(":")[0]
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host name {host} cannot be resolved"
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    if isinstance(error, asyncio.TimeoutError):
        return f"nothing answered within {seconds:g} s"
    if isinstance(error, NotComfyUI):
        return f"what listens there is no ComfyUI ({error})"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"what listens there is no ComfyUI (it does not speak HTTP: {first_line(error.message)})"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "what listens there closed the connection without an answer"
    return f"the connection failed ({first_line(getattr(cause, 'strerror', None) or cause) or type(error).__name__})"


def first_line(text):
    return next(iter(f"{text}".strip().splitlines()), "").rstrip(".:")
