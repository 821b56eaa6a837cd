"""What an operator loads into other programs: alert rules and dashboards, written from the names that we emit."""
