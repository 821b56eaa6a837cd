"""Profiles of executions: when they are taken, how, and what becomes of them."""
