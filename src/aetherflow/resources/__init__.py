"""What nodes lean on: contexts, scopes, pools."""
