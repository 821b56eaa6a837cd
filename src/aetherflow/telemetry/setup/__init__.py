"""What `configure()` does."""
