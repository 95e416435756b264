"""Web Push: browsers, and any app that receives by UnifiedPush."""
