"""Settings that cannot change a result, and why."""

from __future__ import annotations

INERT: dict[str, str] = {
    "evaluation.workers": "an episode is a function of its seed, whichever process simulates it",
    "demonstrations.workers": "attempts have fixed seeds and are taken in order",
    "demonstrations.folder": "a cache: the demonstrations are named by what they depend on",
    "save_minutes": "a run that goes on from a save ends with the same bits",
    "video.episodes": "recording copies physics states and changes none",
    "video.size": "pictures are drawn after the run, from recorded states",
    "video.stride": "as video.size",
    "video.frames_per_second": "as video.size",
    "video.render": "as video.size",
}
"""`device` and `threads` are none of them: sums are taken in another order there, and training carries the last digit on."""
