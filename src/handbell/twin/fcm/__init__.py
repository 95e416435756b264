"""Google's side: FCM HTTP v1, its access tokens, and the Android phone."""
