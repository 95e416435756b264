"""Programs that do the same work with other libraries."""
