"""Firebase Cloud Messaging (HTTP v1): Android devices, and whatever else Firebase reaches."""
