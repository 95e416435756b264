"""Pages that devices and browsers reach without a key: mailed links and universal links."""
