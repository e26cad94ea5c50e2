"""Count compilations; after the first steps, a step must not compile anything."""

import jax

_EVENT = "/jax/core/compile/backend_compile_duration"
_count = 0


def _listen(event: str, duration: float, **_: object) -> None:
    global _count
    if event == _EVENT:
        _count += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


def compile_count() -> int:
    """Return how many programs JAX compiled since this module was imported."""
    return _count
