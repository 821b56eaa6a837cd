"""Where executions may run besides the calling thread."""
