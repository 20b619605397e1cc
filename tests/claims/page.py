"""What was measured, as tables for docs/claims.md."""
