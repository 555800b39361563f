"""What a server carries at most, so that no client can take it all."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a server. What exceeds them is refused or cut off."""

    upload_bytes: int = 200 << 20
    """Most bytes of an upload."""
    held_bytes: int = 1 << 30
    """Most bytes of all uploads in memory."""
    audio_s: float = 4 * 3600.0
    """Seconds of a recording."""
    request_s: float = 1800.0
    """Seconds from the head of a request to the end of its answer."""
    idle_s: float = 10.0
    """Seconds that a client may take for the head of a request, or be silent within it."""
    slowest_bytes: int = 1000
    """Lowest mean rate of an upload in bytes per second, after the first `idle_s`."""
    connections: int = 1000
    live_sessions: int = 16
    """Most sessions over WebSockets, and separately over Wyoming."""
    live_idle_s: float = 60.0
    """Seconds from one message of such a client to the next."""
    live_samples: int = 8 << 20
    """Most samples of a command or of one commit: nearly nine minutes at 16 kHz."""
    queue: int = 512
    """Requests that are recognised or wait for it."""
    long_recordings: int = 4
    """Recordings of more than 30 seconds at once; others of that length wait."""
    queued_s: float = 600.0
    """Seconds of decoded audio that wait for recognition; decoding pauses above."""
    decoders: int = 2
    """Processes that decode short recordings."""
    decoding_s: float = 20.0
    """Seconds of decoding from one part of a recording to the next. The first has up to 40 s of
    audio, others ten seconds."""
    decoding_bytes: int = 2 << 30
    """Memory of such a process."""
    keywords: int = 200
    """Hot words and phrases of a request."""
    stop_s: float = 60.0
    """Seconds in which accepted requests are finished after the signal to stop."""
