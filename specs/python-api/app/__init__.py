"""Statistics of numbers over HTTP."""
