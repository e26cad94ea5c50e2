"""Commands of the `jaxrl` program, and the modules that they share."""
