//! Postgres roles.
