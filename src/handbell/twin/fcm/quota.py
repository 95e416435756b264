"""FCM's published quotas: of a project, of a device, and of collapsible messages to a device.

Source: https://firebase.google.com/docs/cloud-messaging/throttling-and-quotas
"""

from typing import Final

from handbell._token_bucket import TokenBucket
from handbell.services.fcm.protocol import (
    COLLAPSIBLE_BURST,
    COLLAPSIBLE_SECONDS,
    DEVICE_PER_HOUR,
    DEVICE_PER_MINUTE,
    MESSAGES_PER_MINUTE,
)

from .responses import FcmRefusal

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_MAX_BUCKETS: Final = 50_000


class Quotas:
    """Token buckets by project and by device, the oldest dropped where there are too many.

    ``per_minute`` is the quota of each project.
    """

    def __init__(self) -> None:
        self.per_minute = MESSAGES_PER_MINUTE
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def take_project(self, project: str, now: float) -> FcmRefusal | None:
        """Count a request of a project; return the refusal if its quota is used up."""
        wait = self._take("project", project, self.per_minute, _MINUTE, now)
        if not wait:
            return None
        limit = "Send requests per minute"
        return FcmRefusal(
            code="QUOTA_EXCEEDED",
            why=f"The project {project} has sent {self.per_minute} messages in a minute.",
            message=(
                f"Quota exceeded for quota metric 'Send requests' and limit '{limit}' of service "
                f"'fcm.googleapis.com' for consumer 'projects/{project}'."
            ),
            details=(
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "RATE_LIMIT_EXCEEDED",
                    "domain": "googleapis.com",
                    "metadata": {
                        "consumer": f"projects/{project}",
                        "quota_limit": "SendsPerMinutePerProject",
                        "quota_limit_value": str(self.per_minute),
                        "quota_metric": "fcm.googleapis.com/send_requests",
                        "service": "fcm.googleapis.com",
                    },
                },
            ),
            is_front=True,
            retry_after=max(1, round(wait)),
        )

    def take_device(self, token: str, now: float) -> FcmRefusal | None:
        """Count a message to a device; return the refusal if it gets too many."""
        for name, size, seconds in (
            ("minute", DEVICE_PER_MINUTE, _MINUTE),
            ("hour", DEVICE_PER_HOUR, _HOUR),
        ):
            if self._take(name, token, size, seconds, now):
                return FcmRefusal(
                    code="QUOTA_EXCEEDED",
                    why=f"One device gets {size} messages in one {name} at most.",
                    message="Device message rate exceeded.",
                    quota=f"token:{token[:12]}",
                )
        return None

    def collapsible_wait(self, token: str, now: float) -> float:
        """Count a collapsible message to a device; return the seconds that it is held back."""
        seconds = COLLAPSIBLE_SECONDS * COLLAPSIBLE_BURST
        return self._take("collapsible", token, COLLAPSIBLE_BURST, seconds, now)

    def _take(self, name: str, subject: str, size: float, seconds: float, now: float) -> float:
        """Take one; return the seconds until there is one if there is none now."""
        bucket = self._buckets.pop((name, subject), None)
        if bucket is None or bucket.size != size:
            bucket = TokenBucket.full(size, size / seconds, now)
        taken = bucket.take(1, now)
        self._buckets[name, subject] = taken.bucket
        if len(self._buckets) > _MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return taken.wait_seconds
