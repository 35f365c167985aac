//! Tests of what registries are configured with.
