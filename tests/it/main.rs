//! The whole product on loopback.
