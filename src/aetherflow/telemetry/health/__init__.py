"""What the meters say of a program's health."""
