//! Random values from the operating system's generator.
